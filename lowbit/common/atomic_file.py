"""Atomic file writes."""

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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # the mode `open` would have set
        before()
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
