"""Names of files that may not lead out of the folder they are looked up in."""

import re

_DRIVE = re.compile(r"[A-Za-z]:")


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
    )


def is_name(text: str) -> bool:
    """Whether a text names an entry of a folder itself.

    Example:
        >>> [is_name(text) for text in ("birds", "my birds", ".", "..", "a/b", "")]
        [True, True, False, False, False, False]
    """
    return text != "." and "/" not in text and is_inside(text)
