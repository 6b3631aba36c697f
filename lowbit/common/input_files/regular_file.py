"""Read a file that is one, and no longer than it may be."""

import os
import stat
from pathlib import Path

from lowbit.common.text import size

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotAFileError(ValueError):
    """A path names something that is not read: a folder, a pipe, a device, or too long a file."""


def check_regular(path: str | os.PathLike) -> None:
    """Refuse a pipe or a device, which would be waited for without end.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
        NotAFileError: it is not a regular file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise NotAFileError(f"it is {_KINDS.get(stat.S_IFMT(mode), 'a special file')}, not a file")


def read_regular(path: str | os.PathLike, *, limit: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        limit: of its size, bytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
        NotAFileError: it is not a regular file, or it is longer.
    """
    check_regular(path)
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NotAFileError(f"it is longer than {size(limit)}")
    return data
