"""What a training reports: a line of metrics.jsonl and of the log every so many iterations.

Under transition-rate scheduling a line has `transitions`: the target R and, in the order of `names`,
each layer's running rate K and adaptive learning rate U (lists `running` and `lr`, and what else
the optimizer's `rates()` gives). Where the detector was scored, a line of its own has `scores`.
"""

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch

from lowbit.common.atomic_file import atomic

METRICS = "metrics.jsonl"

_logger = logging.getLogger(__name__)


class Recorder:
    """Append a training's losses, learning rate and transition rates to `folder/metrics.jsonl`.

    Lines of iterations that a resumed run is about to repeat are dropped when it opens the file, so
    the file of a killed and resumed run is that of a straight one. Lines without an `iteration` are
    others' and stay.

    Args:
        folder: where metrics.jsonl is or will be.
        start: iterations already done.
        total: iterations in all.
        every: iterations between lines; the last iteration always gets one.
    """

    def __init__(self, folder: str | Path, *, start: int, total: int, every: int) -> None:
        self.path = Path(folder) / METRICS
        self.total, self.every = total, every
        self._drop_after(start)

    def due(self, iteration: int) -> bool:
        """Whether iteration number `iteration`, counted from 0, gets a line."""
        return (iteration + 1) % self.every == 0 or iteration + 1 == self.total

    def write(
        self, iteration: int, losses: dict[str, float], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the line of an iteration; a transition-rate optimizer adds its rates."""
        line: dict[str, Any] = {"iteration": iteration + 1, **losses}
        line["lr"] = optimizer.param_groups[0]["lr"]
        text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        if hasattr(optimizer, "rates"):
            rates = optimizer.rates()
            line["transitions"] = rates
            mean = sum(rates["running"]) / len(rates["running"])
            text += f", transition rate {mean:.2e} (target {rates['target']:.2e})"
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        _logger.info("iteration %d/%d: %s, lr %.2e", iteration + 1, self.total, text, line["lr"])

    def _drop_after(self, start: int) -> None:
        kept = [line for line in read_lines(self.path) if line.get("iteration", 0) <= start]
        if self.path.exists():
            _rewrite(self.path, kept)


def record_scores(folder: str | Path, iteration: int, scores: dict[str, float]) -> None:
    """Write how the detector scored after an iteration, in place of what was written for it."""
    path = Path(folder) / METRICS
    kept = [
        line
        for line in read_lines(path)
        if not (line.get("iteration") == iteration and "scores" in line)
    ]
    plain = {name: float(value) for name, value in scores.items()}
    _rewrite(path, [*kept, {"iteration": iteration, "scores": plain}])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, but for one that a kill cut short; none without a file."""
    if not path.exists():
        return []
    whole = [t for t in path.read_text().splitlines(keepends=True) if t.endswith("\n")]
    return [json.loads(text) for text in whole]


def read_curve(folder: str | Path) -> list[dict[str, float]]:
    """Return the scores of a run's evaluations with their iteration, in order."""
    lines = read_lines(Path(folder) / METRICS)
    return [{"iteration": x["iteration"], **x["scores"]} for x in lines if "scores" in x]


def _rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    with atomic(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def check_finite(losses: dict[str, float], iteration: int) -> None:
    """Stop a training whose loss is NaN or infinite, before the weights take the step.

    Raises:
        FloatingPointError: with the iteration, counted from 1, and the losses.
    """
    if not math.isfinite(sum(losses.values())):
        raise FloatingPointError(f"iteration {iteration + 1}: {losses}")


def diverged(error: FloatingPointError, *, lr: float, good: int | None) -> FloatingPointError:
    """Return the message a diverged training ends with.

    Args:
        error: what was found.
        lr: the recipe's learning rate.
        good: iterations of the last training state, all of whose losses were finite; None without.
    """
    last = f"the state after iteration {good}" if good else "no training state"
    return FloatingPointError(
        f"the loss became infinite or NaN ({error}) at learning rate {lr:g}; the training stopped "
        f"and no detector was written; {last} is kept. Lower `lr` or raise `warmup_iterations`."
    )
