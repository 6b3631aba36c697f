"""Boards as the rows of the page's tables: texts, sort keys and the facets rows are filtered by."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.adaptive import AdaptiveRow
from benchmark.boards import Board, Cell, Line
from benchmark.comparability import precision_rank
from benchmark.wording import ZERO_SHOT, metric_name, number

_NOTHING_PLANNED = Cell(status="absent", reason="not in any suite that ran here")


@dataclass(frozen=True)
class CellView:
    """A table cell: what is printed, what it sorts by, and what is said about it on demand."""

    text: str
    order: float
    title: str
    kind: str  # completed, failed, skipped or absent
    sd: str = ""
    rank: str = ""
    best: bool = False
    drop: str = ""
    marks: str = ""


def classification_rows(boards: Iterable[Board], precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a line and metric, with a cell for each precision."""
    rows = []
    for board in boards:
        for metric in board.metrics:
            for line in board.lines:
                cells = [line.cells.get((p, metric), _NOTHING_PLANNED) for p in precisions]
                row = _row(board, line, cells)
                rows.append(row | {"metric": metric_name(metric)})
            rows[-len(board.lines)]["first"] = True
    return rows


def adaptive_rows(found: Iterable[AdaptiveRow], precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a network, measured or published, with a cell for each precision and Delta_B."""
    rows: list[dict[str, Any]] = []
    for row in found:
        if row.board is None:
            cells = [_reported_cell(row.cells.get(precision)) for precision in precisions]
        else:
            cells = [_cell(row.cells.get(p, _NOTHING_PLANNED), row.board) for p in precisions]
        kept = ("checkpoint", "architecture", "dataset", "method")
        labels = {name: getattr(row, name) for name in kept} | {"metric": metric_name(row.metric)}
        first = not rows or any(rows[-1][name] != labels[name] for name in kept[:3])
        group = row.board.group if row.board else ""
        more = {"cells": cells, "delta": _delta(row.delta), "group": group, "first": first}
        rows.append(labels | more)
    return rows


def _delta(cell: Cell) -> CellView:
    if math.isnan(cell.value):
        return CellView("–", -1, cell.reason, "absent")
    kind = "reported" if cell.printed else "completed"
    return CellView(cell.printed or number(cell.value), round(cell.value, 6), cell.reason, kind)


def detection_rows(boards: Iterable[Board], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a line and precision, best first, with a cell for each metric."""
    rows = []
    for board in boards:
        found = [
            _row(board, line, [line.cells.get((precision, m), _NOTHING_PLANNED) for m in metrics])
            | {"precision": precision}
            for line in board.lines
            for precision in {p for p, _ in line.cells}
        ]
        found.sort(key=lambda row: (precision_rank(row["precision"]), -row["cells"][0].order))
        seen: set[str] = set()
        for row in found:
            row["first"] = row["precision"] not in seen
            seen.add(row["precision"])
        rows += found
    return rows


def reported_rows(lines: Iterable[Line], precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a published line, with a cell for each precision."""
    rows = []
    for line in lines:
        by_precision = {precision: cell for (precision, _), cell in line.cells.items()}
        cells = [by_precision.get(precision) for precision in precisions]
        notes = sorted({cell.reason for cell in by_precision.values() if cell.reason})
        rows.append(
            line.subject
            | {
                "metric": metric_name(line.subject["metric"]),
                "cells": [_reported_cell(cell) for cell in cells],
                "notes": "; ".join(notes),
            }
        )
    return rows


def facets(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> list[dict[str, Any]]:
    """Return the columns worth filtering by, those with several values, and these values."""
    found = [
        {"name": name, "label": label, "values": sorted({row[name] for row in rows})}
        for name, label in columns.items()
    ]
    return [facet for facet in found if len(facet["values"]) > 1]


def _row(board: Board, line: Line, cells: Sequence[Cell]) -> dict[str, Any]:
    seeds = sorted({cell.n_seeds for cell in cells if cell.n_seeds})
    kept = ("dataset", "protocol", "engine")
    return (
        line.subject
        | {name: board.facts[name] for name in kept}
        | {
            "group": board.group,
            "cells": [_cell(cell, board) for cell in cells],
            "seeds": f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else str(*seeds) or "0",
            "seeds_order": seeds[-1] if seeds else 0,
            "first": False,
        }
    )


def _cell(cell: Cell, board: Board) -> CellView:
    if not cell.n_seeds:
        text = "–" if cell.status == "absent" else cell.status
        return CellView(text, -1, cell.reason or cell.status, cell.status)
    return CellView(
        text=number(cell.value),
        order=round(cell.value, 6),
        title=_title(cell, board),
        kind="completed",
        sd="" if cell.n_seeds == 1 else f"±\u202f{number(cell.sd)}",
        rank=str(cell.rank) if cell.best or cell.rank > 1 else "",
        best=cell.best,
        drop="" if math.isnan(cell.drop) else number(cell.drop, sign=True),
        marks=("†" if cell.n_seeds == 1 else "")
        + ("‡" if cell.n_jobs > cell.n_seeds else "")
        + (ZERO_SHOT if cell.zero_shot else ""),
    )


def _title(cell: Cell, board: Board) -> str:
    """Say everything known about a number."""
    parts = [f"{cell.value:.2f} %"]
    if cell.zero_shot:
        parts.append("zero-shot: not trained at this precision")
    if cell.n_seeds == 1:
        parts.append("one seed, spread unknown")
    else:
        parts.append(f"{cell.n_seeds} seeds, standard deviation {cell.sd:.2f}")
        parts.append(f"95 % interval of the mean {cell.low:.2f} to {cell.high:.2f}")
    if len(board.images) == 1:
        parts.append(f"{board.images[0]:,} test images")
    if not math.isnan(cell.stderr):
        parts.append(f"standard error over test images {cell.stderr:.2f}")
    if cell.n_jobs > cell.n_seeds:
        parts.append(f"{cell.n_jobs} jobs share these seeds and were averaged first")
    if cell.missing:
        parts.append(f"{cell.missing} more job(s) gave no number")
    return "; ".join(parts)


def _reported_cell(cell: Cell | None) -> CellView:
    if cell is None:
        return CellView("–", -1, "not in the paper's table", "absent")
    doubtful = cell.reason.startswith("ocr-ambiguous")
    return CellView(
        cell.printed,
        cell.value,
        cell.reason,
        "reported",
        marks=("?" if doubtful else "") + (ZERO_SHOT if cell.zero_shot else ""),
    )
