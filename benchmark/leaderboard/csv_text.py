"""CSV that spreadsheets show as it is: no name of another's becomes a formula.

A cell of text that a spreadsheet would compute, as it begins with =, +, - or @, gets an apostrophe in
front; numbers stay as they are, in columns of text too. `read_csv` takes that apostrophe away again, so
that names come back as they were. Control characters are written as escapes, as everywhere.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from lowbit.common.text import printable

# Spaces and apostrophes before it do not hide a formula from every program; the last four are of full width.
_FORMULA = r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]."
_COMPUTED = re.compile(rf"'*{_FORMULA}", re.DOTALL)
_DEFUSED = re.compile(rf"''*{_FORMULA}", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def defused(text: str) -> str:
    """Return a text as a spreadsheet's cell that is not computed.

    Example:
        >>> [defused(text) for text in ("=1+1", "-1.5", "SSQL", "-", "'@a")]
        ["'=1+1", '-1.5', 'SSQL', '-', "''@a"]
    """
    text = printable(text, len(text))
    return f"'{text}" if _COMPUTED.match(text) and not _NUMBER.fullmatch(text) else text


def original(cell: str) -> str:
    """Return the text that a cell was written for.

    Example:
        >>> [original(cell) for cell in ("'=1+1", "-1.5", "''@a", "'quoted'")]
        ['=1+1', '-1.5', "'@a", "'quoted'"]
    """
    return cell[1:] if _DEFUSED.match(cell) else cell


def to_csv(frame: pd.DataFrame, **options: Any) -> str:
    """Return a table as CSV, its text defused; options are those of `DataFrame.to_csv`."""
    safe = _each_text(frame, defused).rename(columns=lambda name: defused(str(name)))
    return safe.to_csv(index=False, lineterminator="\n", **options)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that `to_csv` wrote, with its texts as they were; an empty cell is "" or NaN."""
    return _each_text(pd.read_csv(path, keep_default_na=False, na_values=[""]), original)


def _each_text(frame: pd.DataFrame, change) -> pd.DataFrame:
    changed = {}
    for name, column in frame.items():
        if pd.api.types.is_numeric_dtype(column):
            continue
        texts = {value for value in column.unique() if isinstance(value, str)}
        if new := {text: change(text) for text in texts if change(text) != text}:
            changed[name] = column.astype(object).map(lambda value, new=new: new.get(value, value))
    return frame.assign(**changed)
