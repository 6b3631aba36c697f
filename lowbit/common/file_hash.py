"""File hashes, cached per process while the file is unchanged."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, recomputed only when its size or modification time changes."""
    stat = os.stat(path)
    return _sha256(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
