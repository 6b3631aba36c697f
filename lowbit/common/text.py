"""Format counts, times, sizes and percentages; quote what others wrote."""

import math
import re
import reprlib

_LONGEST = 200  # characters of a foreign text in a message
# Control characters, line separators, marks that change the direction of writing, half characters.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxstring = _BRIEF.maxother = 120


def counted(number: int, noun: str) -> str:
    """Format a count with its noun.

    Example:
        >>> counted(1, "job"), counted(2000, "job")
        ('1 job', '2,000 jobs')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Format a duration with about two digits.

    Example:
        >>> [duration(s) for s in (0.4, 42, 100, 4000, 200_000, 9_000_000)]
        ['0.4 s', '42 s', '1.7 min', '1.1 h', '56 h', '104 days']
    """
    for unit, name in ((1, "s"), (60, "min"), (3600, "h")):
        if seconds < 60 * unit or (unit == 3600 and seconds < 100 * unit):
            return f"{_digits(seconds / unit)} {name}"
    return f"{_digits(seconds / 86400)} days"


def size(count: float) -> str:
    """Format a number of bytes.

    Example:
        >>> size(900), size(45e6), size(1.234e12)
        ('900 bytes', '45 MB', '1.2 TB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{_digits(count / unit)} {name}"
    return f"{count:.0f} bytes"


def printable(text: str, longest: int = _LONGEST) -> str:
    """Return a foreign text that cannot change a terminal: escaped, and shortened.

    Example:
        >>> print(printable("a\\x1b[2J\\u202eb"))
        a\\x1b[2J\\u202eb
    """
    text = text if len(text) <= longest else f"{text[:longest]}..."
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Return a foreign text of several lines, whole, that cannot change a terminal.

    Example:
        >>> print(printable_lines("a\\x1b[2J\\nb"))
        a\\x1b[2J
        b
    """
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def brief(value: object) -> str:
    """Return the `repr` of a foreign value, shortened at every level.

    Example:
        >>> brief({"seeds": list(range(1000))})
        "{'seeds': [0, 1, 2, 3, 4, 5, ...]}"
    """
    return printable(_BRIEF.repr(value))


def number(value: float, *, sign: bool = False) -> str:
    """Format a percentage with one decimal and a true minus sign; "–" for NaN.

    Example:
        >>> number(93.149), number(-0.04), number(-1.25, sign=True), number(0.3, sign=True)
        ('93.1', '0.0', '−1.2', '+0.3')
    """
    if math.isnan(value):
        return "–"
    text = f"{value:.1f}"
    text = "0.0" if text == "-0.0" else text
    plus = "+" if sign and value > 0 and text != "0.0" else ""
    return plus + text.replace("-", "−")


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
