"""The folder of what can be computed again, and whose files may be trusted."""

import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path | None:
    """Return `lowbit-bench` under $XDG_CACHE_HOME or ~/.cache; None where there is no home, as in containers."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lowbit-bench"
    except RuntimeError:
        return None


def is_private(status: os.stat_result) -> bool:
    """Whether nobody but this user and root can have written a file, or put others in a folder."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & _OTHERS_WRITE


def make_private(folder: Path) -> None:
    """Create a folder that only this user writes to.

    Raises:
        OSError: it cannot be created, or is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid == os.geteuid() and not is_private(status):
        folder.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
    elif not is_private(status):
        raise PermissionError(f"{folder} is another user's, or others can write to it")
