"""Recognize that a disk is full, whoever says so and however, and name it."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lowbit.common.text import size

NO_SPACE = os.EX_IOERR  # exit code of a job that a full disk stopped; it has no result

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# Libraries in C++ and Rust, and exceptions from another process, keep only the text. Torch's own writer
# knows no reason; hardly anything else stops it.
_TEXTS = (
    "no space left on device",
    "disk quota exceeded",
    "disk is full",
    "file write failed",
    "pytorchstreamwriter failed",
    "iostream error",
)


class NoSpaceError(OSError):
    """A disk is full: `strerror` names it."""

    def __init__(self, *folders: str | Path) -> None:
        super().__init__(errno.ENOSPC, describe_fullest(*folders))


def is_no_space(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, says that a disk is full."""
    return any(
        getattr(e, "errno", None) in _ERRNOS
        or (isinstance(e, Exception) and any(text in str(e).lower() for text in _TEXTS))
        for e in _chain(error)
    )


def describe_fullest(*folders: str | Path) -> str:
    """Say which disk is the fullest, of those of `folders` and of temporary files."""
    usage = {}
    for folder in (*folders, tempfile.gettempdir(), "/dev/shm"):
        mount = _mount(Path(folder).absolute())
        if mount not in usage and mount.is_dir():
            usage[mount] = shutil.disk_usage(mount)
    mount, space = min(usage.items(), key=lambda item: item[1].free / max(1, item[1].total))
    return (
        f"No space is left on the disk at {mount} ({size(space.free)} of {size(space.total)} free)"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _mount(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if os.path.ismount(p) or p == p.parent)
