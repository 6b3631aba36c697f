"""Untrusted text that is safe to display, or refused."""

import unicodedata
from typing import Any

# Control characters, invisible ones, and those that change the writing direction: a name with them can
# look like another name, or control a terminal.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKUP = frozenset("<>`\\")
_SHOWN = 60  # characters of a foreign text quoted in a message
LONGEST_NAME = 120


def shown(text: object, longest: int = _SHOWN) -> str:
    """Return a foreign text for a message: quoted, on one line, in ASCII, shortened.

    Example:
        >>> print(shown("a\\x1b[2Jb"))
        'a\\x1b[2Jb'
    """
    text = str(text)
    return ascii(text if len(text) <= longest else f"{text[:longest]}...")


def name_problem(text: str) -> str | None:
    """Return why a text cannot be a name on a board, or None.

    Example:
        >>> name_problem("SSQL (ours), α = 0.1"), name_problem("<b>SSQL</b>")
        (None, 'has a character of markup')
    """
    if not text.strip() or text != text.strip():
        return "is empty, or begins or ends with a space"
    if len(text) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    if _MARKUP & set(text):
        return "has a character of markup"
    if any(unicodedata.category(character) in _HIDDEN for character in text):
        return "has characters that are not seen"
    return None


def hidden_text(value: Any) -> str | None:
    """Return the first text in a JSON value with control characters other than line ends, or None."""
    if isinstance(value, str):
        seen = value.replace("\n", "").replace("\t", "")
        return value if any(unicodedata.category(c) in _HIDDEN for c in seen) else None
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return next((found for item in value if (found := hidden_text(item)) is not None), None)
    return None
