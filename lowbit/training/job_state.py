"""Resumable training state of a job, written atomically and robust to damaged files."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.common.atomic_file import atomic
from lowbit.common.text import printable
from lowbit.training import distributed

STATE = "last.pth"
PARTS = "parts"  # folder for a job's several trainings
CLAIM = "job.json"

_logger = logging.getLogger(__name__)


class Workspace:
    """The folder of a training and the resumable states in it.

    The files are authoritative. The newest state is `last.pth`, then `last.1.pth`, `last.2.pth`,
    and so on. Each holds the key of its job.

    Args:
        folder: an existing folder.
        key: everything that identifies the job, in plain JSON types; the state of a job with
            another key is refused.
        file: name of the newest state.
        keep: number of states to keep.
    """

    def __init__(
        self, folder: Path, *, key: Mapping[str, Any], file: str = STATE, keep: int = 1
    ) -> None:
        self.folder, self.key, self.keep = Path(folder), key, keep
        self.state_path = self.folder / file

    def part(self, name: str) -> "Workspace":
        """Return the workspace of one of a job's several trainings, in a separate folder."""
        folder = self.folder / PARTS / name
        folder.mkdir(parents=True, exist_ok=True)
        return Workspace(folder, key={**self.key, "part": name})

    def save(self, **state: Any) -> None:
        """Write a state as the newest; rank 0 writes and all processes wait for it.

        A crash at any point leaves the previous state, under its own or the next older name.
        """
        if distributed.rank() == 0:
            with atomic(self.state_path, before=self._make_room) as file:
                torch.save({"job": json.dumps(self.key, sort_keys=True), **state}, file)
        distributed.barrier()

    def resume(self) -> dict[str, Any] | None:
        """Return the newest readable state, on the CPU, or None if there is none.

        Raises:
            ValueError: the state belongs to another job, or every state is damaged.
        """
        paths = [path for path in self._existing() if path.is_file()]
        for path in paths:
            try:
                state = load_checked(path)
            except Exception as error:  # damaged bytes can raise any
                reason = str(error).partition("\n")[0]
                _logger.warning("%s is damaged (%s) and was skipped.", path, printable(reason))
                continue
            _refuse_other_job(path, json.loads(state.pop("job")), self.key)
            _logger.info("resumed from %s", path)
            return state
        if paths:
            raise ValueError(
                f"{', '.join(map(str, paths))}: none can be read; nothing was trained. Restore one "
                "of them from a copy, or delete them to start over."
            )
        return None

    def path_of(self, age: int) -> Path:
        """Return the path of the state of that age; 0 is the newest."""
        path = self.state_path
        return path.with_name(f"{path.stem}.{age}{path.suffix}") if age else path

    def _existing(self) -> list[Path]:
        stem, suffix = self.state_path.stem, self.state_path.suffix
        names = (path.name for path in self.folder.glob(f"{stem}.*{suffix}"))
        ages = (name.removeprefix(f"{stem}.").removesuffix(suffix) for name in names)
        return [self.path_of(age) for age in sorted({0, *(int(a) for a in ages if a.isdecimal())})]

    def _make_room(self) -> None:
        for path in self._existing()[self.keep :]:
            path.unlink(missing_ok=True)
        for age in reversed(range(self.keep - 1)):
            if self.path_of(age).is_file():
                self.path_of(age).replace(self.path_of(age + 1))


def claim(folder: Path, key: Mapping[str, Any]) -> None:
    """Mark a folder as a job's with `job.json`, so that no other job resumes from its states.

    Raises:
        ValueError: the folder belongs to another job.
    """
    path = folder / CLAIM
    if path.exists():
        _refuse_other_job(folder, json.loads(path.read_text()), key)
        return
    with atomic(path) as file:
        file.write(json.dumps(key, indent=1, sort_keys=True).encode())


def _refuse_other_job(where: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    if found == wanted:
        return
    before, now = dict(_flat(found)), dict(_flat(wanted))
    missing = object()
    changed = sorted(
        name.removeprefix("recipe.")
        for name in before.keys() | now.keys()
        if before.get(name, missing) != now.get(name, missing)
    )
    raise ValueError(
        f"{where} belongs to another job, which differs in {', '.join(changed)}; nothing was trained "
        "and nothing was overwritten. Choose another folder, or delete this one to start over."
    )


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested mappings with its dotted name."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
