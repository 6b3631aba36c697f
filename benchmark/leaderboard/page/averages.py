"""Means over data sets, one table a family of boards, only of checkpoints that cover the same sets."""

from typing import Any

from lowbit.benchmark.leaderboard.dataset_means import NOTE, Average, Mean, averages
from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import MEASURED, SUBJECT, metric_name, precision_rank
from lowbit.common.text import number


def content(source: Source) -> dict[str, Any]:
    """Return one row a checkpoint and family with a cell for each precision; empty without any."""
    tables = averages(source.folded)
    precisions = sorted({p for table in tables for p in table.precisions}, key=precision_rank)
    found = [row for index, table in enumerate(tables) for row in _rows(table, index, precisions)]
    if not found:
        return {}
    families = [
        {"datasets": table.datasets, "notes": table.notes} | table.facts for table in tables
    ]
    return {
        "cell": rows.CELL,
        "columns": precisions,
        "families": families,
        "rows": found,
        "note": NOTE,
    }


def _rows(table: Average, family: int, precisions: list[str]) -> list[rows.Row]:
    facts = {name: table.facts[name] for name in ("task", "protocol", "engine")}
    return [
        {"source": MEASURED}
        | dict(zip(SUBJECT, subject, strict=True))
        | facts
        | {"family": family, "metric": metric_name(table.metric)}
        | {"cells": [_cell(means.get(precision)) for precision in precisions]}
        for subject, means in table.means.items()
    ]


def _cell(mean: Mean | None) -> list[Any] | None:
    """Return a mean as a cell; a dagger where its interval is over images, not seeds."""
    if mean is None:
        return None
    value = [number(mean.value), round(mean.value, 4), 0, "", "", mean.rank, int(mean.best)]
    dagger = "†" if mean.interval == "images" else ""
    return [*value, dagger, rows.known(mean.low), rows.known(mean.high)]
