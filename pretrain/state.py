"""The files a run goes on from: written whole or not at all, the newest ones kept, damage survived."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from lowbit.common.atomic_file import atomic

STATE = "last.pth"

_logger = logging.getLogger(__name__)


def path_of(folder: Path, age: int) -> Path:
    """Return where the state of that age is: last.pth, then last.1.pth, last.2.pth, ..."""
    return folder / (f"last.{age}.pth" if age else STATE)


def save(folder: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write a state as the newest and keep `keep` in all.

    A crash at any instant leaves the one before, under its own or the next older name.
    """
    with atomic(folder / STATE, before=lambda: _age(folder, keep)) as file:
        torch.save(state, file)


def load(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """Return the newest state that can be read, and its file; None where there is none.

    Raises:
        ValueError: there are states, and each of them is damaged.
    """
    paths = [path for path in _existing(folder) if path.is_file()]
    for path in paths:
        try:
            _check_bytes(path)
            return torch.load(path, map_location="cpu", weights_only=True), path
        # Whatever bytes are there, torch may meet them in any of its readers.
        except Exception as error:
            _logger.warning(
                "%s is damaged (%s: %s) and was passed over.",
                path,
                type(error).__name__,
                str(error).partition("\n")[0],
            )
    if paths:
        raise ValueError(
            f"{', '.join(map(str, paths))}: none can be read; nothing was trained. Restore one of "
            "them from a copy, or delete them to start over."
        )
    return None


def _check_bytes(path: Path) -> None:
    """Compare each record with its checksum, at which torch does not look."""
    with zipfile.ZipFile(path) as archive:
        if record := archive.testzip():
            raise ValueError(f"its record {record} is not what was written")


def _existing(folder: Path) -> list[Path]:
    ages = (int(p.suffixes[0][1:]) for p in folder.glob("last.*.pth") if p.stem[5:].isdecimal())
    return [path_of(folder, age) for age in sorted({0, *ages})]


def _age(folder: Path, keep: int) -> None:
    """Make room for a newest state."""
    for path in _existing(folder)[keep:]:
        path.unlink(missing_ok=True)
    for age in reversed(range(keep - 1)):
        if path_of(folder, age).is_file():
            path_of(folder, age).replace(path_of(folder, age + 1))
