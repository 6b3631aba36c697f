"""The folder of a job: its resumable state `last.pth` and its training curve `metrics.jsonl`."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from lowbit.common.atomic_file import atomic

PARTS = "parts"  # folder of the trainings of a job that has several

_logger = logging.getLogger(__name__)


class Workspace:
    """Save and resume what a protocol has done so far.

    The files own the truth. `last.pth` is written whole or not at all; rows of the curve that a
    killed run wrote beyond its last state are dropped when the epochs are done again.

    Args:
        folder: an existing folder.
        key: everything that makes the job what it is; the state of another job is refused.
    """

    def __init__(self, folder: Path, *, key: dict[str, Any]) -> None:
        self.folder = folder
        self.state_path = folder / "last.pth"
        self.curve_path = folder / "metrics.jsonl"
        self._facts = key
        self._key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def part(self, name: str) -> "Workspace":
        """Return the workspace of one of a job's several trainings, in a folder of its own."""
        folder = self.folder / PARTS / name
        folder.mkdir(parents=True, exist_ok=True)
        return Workspace(folder, key={**self._facts, "part": name})

    def resume(self) -> dict[str, Any] | None:
        """Return the saved state, on the CPU, or None where there is none; mend the curve.

        Raises:
            ValueError: the state belongs to another job.
        """
        state = None
        if self.state_path.exists():
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            if state.pop("job", None) != self._key:
                raise ValueError(
                    f"{self.state_path} was left by a job with another recipe or checkpoint; "
                    "nothing was trained and nothing overwritten. Choose another folder, or delete "
                    "the file."
                )
            _logger.info("resuming after epoch %d from %s", state["epoch"], self.state_path)
        done = state["epoch"] if state else 0
        lines = self.curve_path.read_text().splitlines() if self.curve_path.exists() else []
        rows = [row for row in map(_parse, lines) if row is not None and row["epoch"] < done]
        self.curve_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return state

    def save(self, epoch: int, **state: Any) -> None:
        """Write the state after `epoch` epochs: beside the old one, synced, then renamed."""
        with atomic(self.state_path) as file:
            torch.save({"job": self._key, "epoch": epoch, **state}, file)

    def log_epoch(
        self, epoch: int, epochs: int, *, lr: float, loss: dict[str, float], **seen: Any
    ) -> None:
        """Append an epoch, counted from 0, to the curve; about ten of them also go to the log.

        Args:
            seen: whatever else is known of the epoch, in plain JSON types.
        """
        row = {"epoch": epoch, "lr": lr, "loss": loss, **seen}
        with self.curve_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if (epoch + 1) % max(1, epochs // 10) == 0:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in loss.items())
            tops = seen.get("accuracy", {}).items()
            scored = "".join(f"  {name} {value:.2f} %" for name, value in tops)
            _logger.info("epoch %d/%d  lr %g  loss %s%s", epoch + 1, epochs, lr, losses, scored)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the line that a killed run was writing
        return None
