"""Suggestions for an unknown name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the names closest to `name`, or an empty string.

    Case is ignored. The leading space separates it from the preceding sentence.

    Example:
        >>> did_you_mean("epoch", ["epochs", "lr"])
        " Did you mean 'epochs'?"
        >>> did_you_mean("momentum", ["epochs", "lr"])
        ''
    """
    spelled = {item.lower(): item for item in known}
    close = difflib.get_close_matches(str(name).lower(), spelled, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(spelled[item]) for item in close)}?" if close else ""
