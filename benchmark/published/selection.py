"""Read the published numbers, and select some of them.

A *selection* names columns of the file and the value, or the values, wanted there:
`{paper: SSQL, table: Table 11, precision: [FP, 4w4a]}`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief

Selection = Mapping[str, str | Sequence[str]]
Row = Mapping[str, str]

KEY = ("paper", "table", "system", "dataset", "architecture", "protocol", "precision", "metric")
_FILE = Path(__file__).with_name("published.csv")
_DRAWN = Path(__file__).with_name(
    "drawn.csv"
)  # results that a paper draws or tells without a number
_NOT_SCORES = ("hparam:", "num_")  # prefixes of metrics that are settings or data set statistics


@cache
def published_rows() -> tuple[Row, ...]:
    """Return all published numbers, every column as the text in the file."""
    return _read(_FILE)


@cache
def published_scores() -> tuple[Row, ...]:
    """Return the results among them, without hyper-parameters and data set statistics."""
    return tuple(row for row in published_rows() if not row["metric"].startswith(_NOT_SCORES))


@cache
def published_results() -> tuple[Row, ...]:
    """Return the scores, and after them the results without a number, whose value is "".

    Of the latter the notes say what the paper draws or tells.
    """
    return published_scores() + _read(_DRAWN)


def _read(path: Path) -> tuple[Row, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def select(selection: Selection) -> list[Row]:
    """Return the published scores that a selection names, in the order of the file.

    Raises:
        ValueError: a column or a value does not exist, or nothing has all of them.
    """
    check(selection)
    found = matching(published_scores(), selection)
    if not found:
        raise ValueError(
            f"no published score matches {brief(dict(selection))}; nothing was selected. Each value exists, but "
            "not together: leave one out."
        )
    return found


def check(selection: Any) -> None:
    """Refuse a selection with a column or a value that does not exist."""
    if not isinstance(selection, Mapping) or not selection:
        raise ValueError(
            f"{brief(selection)} selects no published numbers; nothing was selected. Write each entry as "
            "columns with values: {paper: SSQL, table: Table 11}."
        )
    for column, wanted in selection.items():
        if column not in _known():
            raise ValueError(
                f"the published numbers have no column {brief(column)}; nothing was selected."
                f"{_suggestion(str(column), _known())}"
            )
        known = _known()[column]
        for value in values(wanted):
            if value not in known:
                raise ValueError(
                    f"no published score has {column} {brief(value)}; nothing was selected."
                    f"{_suggestion(value, sorted(known))}"
                )


def matching(rows: Iterable[Row], selection: Selection) -> list[Row]:
    """Return the rows that have one of the values wanted in every column."""
    rows = list(rows)
    for column, value in selection.items():
        wanted = frozenset(values(value))
        rows = [row for row in rows if row[column] in wanted]
    return rows


def values(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the value, or the values, wanted in a column.

    Example:
        >>> values("Table 11"), values(["FP", "4w4a"])
        (('Table 11',), ('FP', '4w4a'))
    """
    return tuple(map(str, wanted if isinstance(wanted, list | tuple) else [wanted]))


def published_as(architecture: str) -> list[str]:
    """Return the papers' names of a network, with any suffix.

    Example:
        >>> published_as("ResNet-34")
        ['ResNet-34', 'ResNet-34 + YOLOv4']
    """
    known = _known()["architecture"]
    return [name for name in known if name == architecture or name.startswith(f"{architecture} ")]


@cache
def _known() -> dict[str, dict[str, None]]:
    """Return the values that each column has, in the order of the file."""
    rows = published_results()
    return {column: dict.fromkeys(row[column] for row in rows) for column in rows[0]}


def _suggestion(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known) or f" There are: {', '.join(known)}."
