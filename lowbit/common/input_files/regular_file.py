"""Read a file that is one, and no longer than it may be."""

import os
import stat

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


def check_regular(path: str | os.PathLike) -> int:
    """Refuse a pipe or a device, which would be waited for without end.

    Returns:
        The size of the file, bytes.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
        NotAFileError: it is not a regular file.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise NotAFileError(f"it is {kind}, not a file")
    return found.st_size


def read_regular(path: str | os.PathLike, *, limit: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        limit: of its size, bytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
        NotAFileError: it is not a regular file, or it is longer.
    """
    expected = min(check_regular(path), limit)
    with open(path, "rb") as file:
        data = file.read(expected + 1)  # a buffer of the limit would take longer than the reading
        if expected < len(data) <= limit:
            data += file.read(limit + 1 - len(data))  # it grew meanwhile
    if len(data) > limit:
        raise NotAFileError(f"it is longer than {size(limit)}")
    return data


def read_seen(path: str, length: int) -> bytes | None:
    """Return the content of a file that has just been seen to be a regular one of `length` bytes.

    Returns:
        None if it cannot be read or has changed: `read_regular` says what it is. Nothing is waited for.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # were it now a pipe
        try:
            data = os.read(file, length + 1)  # a buffered reader makes twice the system calls
        finally:
            os.close(file)
    except OSError:
        return None
    return data if len(data) == length else None
