"""Boards as the rows of the page's tables: plain lists, unpacked by names on the other side."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lowbit.benchmark.leaderboard.boards import Board, Cell, Line
from lowbit.benchmark.leaderboard.labels import (
    ZERO_SHOT,
)
from lowbit.benchmark.results.comparability import BOARD, MEASURED, metric_name, precision_rank
from lowbit.common.text import number

# What a cell's list holds, in this order; what is absent at its end was never known. A cell without a
# number is [status, reason], one that nobody planned is null.
CELL = (
    *("text", "value", "seeds", "sd", "drop", "rank", "best", "marks"),
    *("low", "high", "error", "jobs", "missing", "checked"),
)
_DIGITS = 4  # as in the CSV

Row = dict[str, Any]


def line_row(board: Board, line: Line) -> Row:
    """Return what a line and its board are, without its numbers."""
    kept = ("dataset", "protocol", "engine")
    source = {"source": line.subject.get("source", MEASURED)}
    return (
        source | line.subject | {name: board.facts[name] for name in kept} | {"group": board.group}
    )


def group_facts(boards: Iterable[Board]) -> dict[str, dict[str, Any]]:
    """Return what the rows of each group share."""
    return {
        board.group: {name: board.facts[name] for name in BOARD} | {"images": board.images}
        for board in boards
    }


def classification_rows(boards: Iterable[Board], precisions: Sequence[str]) -> list[Row]:
    """Return one row a line and metric, with a cell for each precision."""
    return [
        line_row(board, line)
        | {
            "metric": metric_name(metric),
            "cells": [pack_cell(line.cells.get((p, metric))) for p in precisions],
        }
        for board in boards
        for metric in board.metrics
        for line in board.lines
    ]


def detection_rows(boards: Iterable[Board], metrics: Sequence[str]) -> list[Row]:
    """Return one row a line and precision, best first, with a cell for each metric."""
    rows = []
    for board in boards:
        found = [
            (precision_rank(p), -_main(line, p, metrics), board, line, p)
            for line in board.lines
            for p in {precision for precision, _ in line.cells}
        ]
        found.sort(key=lambda row: row[:2])
        rows += [
            line_row(board, line)
            | {"precision": p, "cells": [pack_cell(line.cells.get((p, m))) for m in metrics]}
            for *_, board, line, p in found
        ]
    return rows


def _main(line: Line, precision: str, metrics: Sequence[str]) -> float:
    cell = line.cells.get((precision, metrics[0]))
    return cell.value if cell and cell.n_seeds else -math.inf


def pack_cell(cell: Cell | None) -> list[Any] | None:
    """Return a cell as a list in the order of `CELL`.

    Example:
        >>> pack_cell(Cell(value=93.25, sd=0.5, low=92.0, high=94.5, n_seeds=3, n_jobs=3))
        ['93.2', 93.25, 3, '0.5', '', 0, 0, '', 92.0, 94.5]
        >>> pack_cell(Cell(status="failed", reason="diverged"))
        ['failed', 'diverged']
    """
    if cell is None:
        return None
    if not cell.n_seeds:
        return [cell.status, cell.reason]
    packed = [
        number(cell.value),
        round(cell.value, _DIGITS),
        cell.n_seeds,
        "" if math.isnan(cell.sd) else number(cell.sd),
        "" if math.isnan(cell.drop) else number(cell.drop, sign=True),
        cell.rank,
        int(cell.best),
        ("†" if cell.n_seeds == 1 else "")
        + ("‡" if cell.n_jobs > cell.n_seeds else "")
        + (ZERO_SHOT if cell.zero_shot else ""),
        known(cell.low),
        known(cell.high),
        known(cell.stderr),
        cell.n_jobs if cell.n_jobs > cell.n_seeds else None,
        cell.missing or None,
        cell.reason or None,
    ]
    while packed[-1] is None:
        packed.pop()
    return packed


def pack_printed(cell: Cell | None) -> list[Any] | None:
    """Return a published number, as its paper prints it, as a cell of no seed."""
    if cell is None:
        return None
    doubtful = "?" if cell.reason.startswith("ocr-ambiguous") else ""
    marks = doubtful + (ZERO_SHOT if cell.zero_shot else "")
    return [cell.printed, round(cell.value, _DIGITS), 0, "", "", 0, 0, marks]


def known(value: float) -> float | None:
    """Round to what the CSV has; None where the value is unknown."""
    return None if math.isnan(value) else round(value, _DIGITS)
