"""Names of files that others wrote: which are none, and which lead out of a folder."""

import os
import re
from pathlib import Path

from lowbit.common.text import brief

_DRIVE = re.compile(r"[A-Za-z]:")
_HALF = re.compile(
    r"[\ud800-\udbff]"
)  # half a character, which JSON can escape and no file name has
_LONGEST = 255  # bytes of a name between two slashes, of the usual file systems


def is_inside(path: str) -> bool:
    r"""Whether a path names something inside any folder that it is joined to, on every system.

    Backslashes are refused: Windows reads them as separators, other systems as part of a name.

    Example:
        >>> [is_inside(path) for path in ("a.jpg", "sub/a..b.jpg", "../a.jpg", "/a.jpg", "C:a", "a\\b", "")]
        [True, True, False, False, False, False, False]
    """
    return not (
        path == ""
        or path[0] == "/"
        or "\\" in path
        or "\0" in path
        or ".." in path.split("/")
        or _DRIVE.match(path)
        or _HALF.search(path)
    )


def is_name(text: str) -> bool:
    """Whether a text names an entry of a folder itself.

    Example:
        >>> [is_name(text) for text in ("birds", "my birds", ".", "..", "a/b", "")]
        [True, True, False, False, False, False]
    """
    return text != "." and "/" not in text and is_inside(text)


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder that `~` stands for.

    Raises:
        ValueError: there is no such home folder, or the path is none.
    """
    try:
        if "\0" in str(path):
            problem = "it has the character NUL"
        elif max(map(len, os.fsencode(path).split(b"/"))) > _LONGEST:
            problem = f"a part of it is longer than {_LONGEST} bytes"
        else:
            return Path(path).expanduser()
    except (RuntimeError, UnicodeError) as error:  # no such user; half a character
        problem = str(error)
    raise ValueError(f"{brief(str(path))} is no file name ({problem}); correct it")


def checked_path(text: str) -> str:
    """Return the text of a path that `expanded` accepts, unchanged; a validator of fields."""
    expanded(text)
    return text
