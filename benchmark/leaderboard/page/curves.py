"""Curves: every line of a board over bit-widths, bit-operations and bytes, and the area under it."""

from collections import Counter
from typing import Any

import pandas as pd

from lowbit.benchmark.leaderboard.boards import Board
from lowbit.benchmark.leaderboard.page import curve_series
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import BOARD, SUBJECT, metric_name, precision_rank
from lowbit.benchmark.results.result_file import BIT_OPERATIONS, WEIGHT_BYTES

POINT = (
    "precision",
    "value",
    "low",
    "high",
    "seeds",
    "spread",
    "retention",
    "retention_low",
    "retention_high",
    WEIGHT_BYTES,
    BIT_OPERATIONS,
)
"""What a point of a line holds, in this order; its precision is a place in the board's `precisions`."""

_DIGITS = 4


def content(source: Source) -> dict[str, Any]:
    """Return every board and metric with its lines, best first; empty where nothing is ranked."""
    seeds = curve_series.by_seed(source.tables.frame)
    if seeds.empty:
        return {}
    lines = seeds.drop_duplicates("line").set_index("line")
    points = curve_series.over_seeds(seeds).join(lines[[*BOARD, "metric"]], on="line")
    boards = {tuple(board.facts[c] for c in BOARD): board for board in source.tables.boards}
    order = [*BOARD, "metric"]
    of_seeds = dict(list(seeds.groupby(order, sort=False)))
    found = [
        _board(boards[key[:-1]], key[-1], part, of_seeds[key])
        for key, part in points.groupby(order, sort=False)
    ]
    found.sort(key=lambda board: (len(board["group"]), board["group"], board["rank"]))
    return {"point": POINT, "boards": found}


def _board(board: Board, metric: str, points: pd.DataFrame, seeds: pd.DataFrame) -> dict[str, Any]:
    precisions = sorted(set(points["precision"]), key=precision_rank)
    shared = curve_series.shared_precisions(points)
    facts = {name: board.facts[name] for name in ("task", "dataset", "protocol", "engine")}
    return {
        "group": board.group,
        "rank": board.metrics.index(metric),
        **facts,
        "metric": metric_name(metric),
        "precisions": precisions,
        "shared": sorted(shared, key=precision_rank),
        "lines": _lines(board, points, seeds, precisions, shared),
    }


def _lines(
    board: Board,
    points: pd.DataFrame,
    seeds: pd.DataFrame,
    precisions: list[str],
    shared: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Return the lines in the board's order; `full` is the place of the one they are held against."""
    firsts = seeds.drop_duplicates("line")
    subjects = firsts[list(SUBJECT)].itertuples(index=False, name=None)
    subject = dict(zip(firsts["line"], subjects, strict=True))
    order = [tuple(line.subject[column] for column in SUBJECT) for line in board.lines]
    rank = {key: number for number, key in enumerate(order)}
    numbers = sorted(subject, key=lambda number: rank[subject[number]])
    place = {number: index for index, number in enumerate(numbers)}
    reference = dict(zip(firsts["line"], firsts["reference"].fillna(-1), strict=True))
    of_line: dict[int, list[list[Any]]] = {number: [] for number in numbers}
    of_precision = {precision: index for index, precision in enumerate(precisions)}
    columns = [plain(points[column]) for column in POINT[1:]]
    for number, precision, *values in zip(
        points["line"], points["precision"], *columns, strict=True
    ):
        of_line[number].append([of_precision[precision], *values])
    area = {c: _areas(curve_series.areas(seeds, shared, c)) for c in ("value", "retention")}
    lines = [
        {
            **dict(zip(SUBJECT, subject[number], strict=True)),
            "points": sorted(of_line[number], key=lambda point: point[0]),
            "full": place.get(reference[number]),
            "area": area["value"].get(number),
            "retained": area["retention"].get(number),
        }
        for number in numbers
    ]
    return [line | {"label": text} for line, text in zip(lines, labels(lines), strict=True)]


def labels(lines: list[dict[str, Any]]) -> list[str]:
    """Name lines by as little as tells them apart: checkpoint and training, then all that is known."""
    short = [_joined(line, "checkpoint", "training") for line in lines]
    count = Counter(short)
    longer = (
        "checkpoint",
        "training",
        *(c for c in SUBJECT if c not in ("checkpoint", "training", "policy")),
    )
    return [
        text if count[text] == 1 else _joined(line, *longer)
        for text, line in zip(short, lines, strict=True)
    ]


def _joined(line: dict[str, Any], *columns: str) -> str:
    return ", ".join(line[column] for column in columns if line[column] != "-")


def plain(column: pd.Series) -> list[Any]:
    """Return a column as JSON holds it in few characters; null: not known."""
    if column.dtype != float:
        return column.tolist()
    return [
        None if value != value else int(value) if value.is_integer() else value
        for value in column.round(_DIGITS).tolist()
    ]


def _areas(areas: pd.DataFrame) -> dict[int, tuple[Any, ...]]:
    return dict(
        zip(areas.index, zip(plain(areas["mean"]), plain(areas["sd"]), strict=True), strict=True)
    )
