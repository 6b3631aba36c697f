"""What the papers print, for orientation: neither measured here nor ranked."""

from typing import Any

from lowbit.benchmark.leaderboard.boards import Line, make_reported
from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.published import PAPERS
from lowbit.benchmark.results.comparability import metric_name, precision_rank


def content(source: Source) -> dict[str, Any]:
    """Return one row a published line, with a cell for each precision; empty where none is shown."""
    lines = make_reported(source.folded)
    if not lines:
        return {}
    precisions = sorted({p for line in lines for p, _ in line.cells}, key=precision_rank)
    papers = sorted({line.subject["paper"] for line in lines})
    return {
        "cell": rows.CELL,
        "columns": precisions,
        "rows": [_row(line, precisions) for line in lines],
        "papers": {paper: PAPERS[paper] for paper in papers},
    }


def _row(line: Line, precisions: list[str]) -> rows.Row:
    cells = {precision: cell for (precision, _), cell in line.cells.items()}
    subject = line.subject
    unit = "" if subject["unit"] == "-" else f" ({subject['unit']})"
    return subject | {
        "metric": metric_name(subject["metric"]) + unit,
        "protocol": subject["protocol"].replace(">", " → ").replace("_", " "),
        "cells": [rows.pack_printed(cells.get(precision)) for precision in precisions],
        "notes": "; ".join(sorted({cell.reason for cell in cells.values() if cell.reason})),
    }
