"""The hashes of files, each computed once as long as the file does not change."""

import hashlib
from functools import lru_cache
from pathlib import Path


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return _digest(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _digest(file: Path, mtime_ns: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
