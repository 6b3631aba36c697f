"""Atomic file writes.

The temporary file of a write is locked until it has its name. One that is not locked was left by a
writer that was killed, and the next write of the same file removes it.
"""

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".tmp"


@contextmanager
def atomic(path: str | Path, *, before: Callable[[], object] = lambda: None) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block succeeds, and is removed otherwise.

    A reader sees the old file or the new one, now and after a crash.

    Args:
        path: the file.
        before: called once the new content is safely on disk while `path` still has the old.
    """
    path = Path(path)
    _remove_abandoned(path)
    file, temporary = _create(path)
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # the mode `open` would have set
            before()
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)  # the rename itself


def sync_folder(folder: Path) -> None:
    """Wait until files that were made, renamed or removed in `folder` are so on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a file so that a reader, now or after a crash, sees the old text or the new."""
    with atomic(path) as file:
        file.write(text.encode())


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in `folder` and below; nobody else may be writing there."""
    for inner, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_SUFFIX):
                Path(inner, name).unlink(missing_ok=True)


def _create(path: Path) -> tuple[BinaryIO, Path]:
    """Create a temporary file beside `path` and lock it, where the file system has locks."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # else another writer took it for abandoned
            return os.fdopen(handle, "wb"), Path(name)
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of `path` that no process holds."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_SUFFIX}"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
