"""Files that are never seen half-written, and the hash that says what a file holds."""

import hashlib
import os
from pathlib import Path

_hashes: dict[tuple[str, int, int], str] = {}


def write_text(path: Path, text: str) -> None:
    """Replace a file so that a reader, now or after a crash, sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, read once a process while its size and time stay the same."""
    path = Path(path)
    stat = path.stat()
    key = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]
