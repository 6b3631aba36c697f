"""Files that are never seen half-written, and the hash that says what a file holds."""

import hashlib
import os
from pathlib import Path

from lowbit.common.atomic_file import atomic

_hashes: dict[tuple[str, int, int], str] = {}


def write_text(path: Path, text: str) -> None:
    """Replace a file so that a reader, now or after a crash, sees the old text or the new."""
    with atomic(path) as file:
        file.write(text.encode())


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, read once a process while its size and time stay the same."""
    path = Path(path)
    stat = path.stat()
    key = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]
