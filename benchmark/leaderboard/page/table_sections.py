"""The sections of the page that are tables of numbers, as JSON: rows of facts and packed cells."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lowbit.benchmark.leaderboard import deployment as integer_inference
from lowbit.benchmark.leaderboard.adaptive_bits import DELTA
from lowbit.benchmark.leaderboard.aggregation.dataset_means import NOTE
from lowbit.benchmark.leaderboard.boards import Board
from lowbit.benchmark.leaderboard.labels import (
    DEPLOYMENT,
    FILES_ONLY,
    ONE_PRETRAINING,
    ROUNDED,
    SHARED_SEEDS,
    ZERO_SHOT,
)
from lowbit.benchmark.leaderboard.page.citations import describe_policies
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.leaderboard.table_parts import Cell, Row, Table
from lowbit.benchmark.published import PAPERS
from lowbit.benchmark.results.comparability import BOARD, OWN, precision_rank
from lowbit.common.text import number

# What a cell's list holds, in this order; what is absent at its end was never known. A cell without a
# number is [status, reason], one that nobody planned is null.
CELL = (
    "text",
    "value",
    "seeds",
    "sd",
    "drop",
    "rank",
    "best",
    "marks",
    "low",
    "high",
    "error",
    "jobs",
    "missing",
    "checked",
    "method",
    "scorings",
    "scoring_sd",
    "rounding",
    "warning",
)
_DIGITS = 4  # as in the CSV
_COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # in COCO's order; others follow by name


def methods(source: Source) -> dict[str, Any]:
    """Return one row a method and table, one column a precision; empty without several pretrainings."""
    tables = source.tables.sections["methods"]
    if not tables:
        return {}
    content = _content(tables, _precisions(tables))
    _number_tables(content, tables)
    return content | {
        "tables": [{"title": table.title, "note": table.note} | table.facts for table in tables],
        "groups": _group_facts(source.tables.boards),
    }


def classification(source: Source) -> dict[str, Any]:
    """Return one row a checkpoint and board, one column a precision; empty where there is none."""
    tables = source.tables.sections["classification"]
    content = _content(tables, _precisions(tables)) | _groups(source, tables, "classification")
    return content and content | {"files_only": _files_only(source)}


def detection(source: Source) -> dict[str, Any]:
    """Return one row a checkpoint, training and precision, best first; empty where there is none."""
    tables = source.tables.sections["detection"]
    found = {metric for table in tables for metric in table.columns}
    metrics = [m for m in _COCO if m in found] + sorted(found.difference(_COCO))

    def order(row: Row) -> tuple:
        main = row.cells.get(metrics[0])
        score = main.value if main and main.n_seeds else -math.inf
        return (precision_rank(row.facts["precision"]), -score)

    rows = [row for table in tables for row in sorted(table.rows, key=order)]
    content = _content(tables, metrics, rows) | _groups(source, tables, "detection")
    return content and content | {"files_only": _files_only(source)}


def deployment(source: Source) -> dict[str, Any]:
    """Return one row a network and precision, with its costs; empty where none was deployed.

    `scores` are the columns of accuracies; `timings` says of what each latency is.
    """
    tables = source.tables.sections["deployment"]
    if not tables:
        return {}
    scores = integer_inference.score_columns(tables)
    content = _content(tables, [*scores, *integer_inference.COLUMNS.values()])
    _number_tables(content, tables)
    return content | {
        "tables": [{"title": table.title, "gaps": table.gaps} | table.facts for table in tables],
        "scores": scores,
        "timings": [
            {"column": t.column, "fact": t.fact, "batch": t.batch, "threads": t.threads}
            for t in integer_inference.TIMINGS
        ],
        "note": DEPLOYMENT,
    }


def adaptive(source: Source) -> dict[str, Any]:
    """Return one row a network with a cell for each precision; empty where none was measured."""
    tables = source.tables.sections["adaptive"]
    if not tables:
        return {}
    (table,) = tables
    content = _content(tables, [column for column in table.columns if column != DELTA])
    for packed, row in zip(content["rows"], table.rows, strict=True):
        packed["delta"] = _delta(row.cells[DELTA])
    return content | {"blanks": table.gaps}


def averages(source: Source) -> dict[str, Any]:
    """Return one row a checkpoint and family with a cell for each precision; empty without any."""
    tables = source.tables.sections["averages"]
    if not tables:
        return {}
    content = _content(tables, _precisions(tables))
    families = [index for index, table in enumerate(tables) for _ in table.rows]
    for packed, family in zip(content["rows"], families, strict=True):
        packed["family"] = family
    return content | {
        "families": [{"notes": table.gaps} | table.facts for table in tables],
        "note": NOTE,
    }


def reported(source: Source) -> dict[str, Any]:
    """Return one row a published line, with a cell for each precision; empty where none is shown.

    A number that cannot be read beyond doubt is marked; why is in results.csv.
    """
    tables = source.tables.sections["reported"]
    if not tables:
        return {}
    papers = sorted({row.facts["paper"] for row in tables[0].rows})
    content = _content(tables, list(tables[0].columns))
    for row in content["rows"]:
        del row["notes"]
    return content | {"papers": {paper: PAPERS[paper] for paper in papers}}


def overview(source: Source) -> dict[str, Any]:
    """Return the names of what was measured in a stable order, and counts of numbers and jobs."""
    frame = source.tables.frame
    own = frame[frame["source"].isin(OWN)]
    scores = own[(own["status"] == "completed") & (own["task"] != "pretrain")]
    status = own.drop_duplicates("job_id")["status"].value_counts()
    return {
        "checkpoints": sorted(set(scores["checkpoint"])),
        "architectures": sorted(set(scores["architecture"])),
        "datasets": sorted(set(scores["dataset"])),
        "precisions": sorted(set(scores["precision"]), key=precision_rank),
        "seeds": sorted({int(seed) for seed in scores["seed"].dropna().unique()}),
        "numbers": len(scores),
        "jobs": {n: int(status.get(n, 0)) for n in ("completed", "failed", "skipped")},
    }


def notes(source: Source) -> dict[str, Any]:
    """Return what each group shares and what each policy's fingerprint stands for."""
    return {
        "groups": _group_facts(source.tables.boards),
        "policies": describe_policies(source.tables.frame),
    }


def pack(cell: Cell | None) -> list[Any] | None:
    """Return a cell as a list in the order of `CELL`.

    Example:
        >>> pack(Cell(value=93.25, sd=0.5, low=92.0, high=94.5, n_seeds=3, n_jobs=3))
        ['93.2', 93.25, 3, '0.5', '', 0, 0, '', 92.0, 94.5]
        >>> pack(Cell(status="failed", reason="diverged"))
        ['failed', 'diverged']
        >>> pack(Cell(value=81.0, printed="81.0", reason="ocr-ambiguous: 81.0 or 31.0"))
        ['81.0', 81.0, 0, '', '', 0, 0, '?']
    """
    if cell is None:
        return None
    if math.isnan(cell.value) and not cell.printed:
        return [cell.status, cell.reason]
    several = cell.n_jobs if cell.n_jobs > cell.n_seeds else None
    packed = [
        cell.printed or number(cell.value),
        round(cell.value, _DIGITS),
        cell.n_seeds,
        "" if math.isnan(cell.sd) else number(cell.sd),
        "" if math.isnan(cell.drop) else number(cell.drop, sign=True),
        cell.rank,
        int(cell.best),
        _marks(cell),
        _known(cell.low),
        _known(cell.high),
        _known(cell.stderr),
        several,
        cell.missing or None,
        None if cell.printed else cell.reason or None,
        1 if cell.of_method else None,
        cell.scorings or None,
        _known(cell.scoring_sd),
        _known(cell.rounding) or None,
        cell.warning or None,
    ]
    while packed[-1] is None:
        packed.pop()
    return packed


def _files_only(source: Source) -> str:
    return "" if source.tables.sections["methods"] else FILES_ONLY


def _marks(cell: Cell) -> str:
    if cell.of_method and cell.n_seeds == 1:
        return ONE_PRETRAINING + (ZERO_SHOT if cell.zero_shot else "")
    doubtful = cell.printed and cell.reason.startswith("ocr-ambiguous")
    over_images = cell.n_seeds == 1 or (not cell.n_seeds and cell.interval == "images")
    return (
        ("?" if doubtful else "")
        + ("†" if over_images else "")
        + (SHARED_SEEDS if cell.n_jobs > cell.n_seeds else "")
        + (ZERO_SHOT if cell.zero_shot else "")
        + (ROUNDED if cell.depends_on_rounding else "")
    )


def _content(
    tables: Sequence[Table], columns: list[str], rows: Iterable[Row] | None = None
) -> dict[str, Any]:
    """Return the rows of tables as one table with these columns; empty without tables."""
    if not tables:
        return {}
    rows = [row for table in tables for row in table.rows] if rows is None else rows
    return {
        "cell": CELL,
        "columns": columns,
        "rows": [
            {**row.facts, "cells": [pack(row.cells.get(column)) for column in columns]}
            for row in rows
        ],
    }


def _number_tables(content: dict[str, Any], tables: Iterable[Table]) -> None:
    """Add to each row which of the tables it is in."""
    places = (index for index, table in enumerate(tables) for _ in table.rows)
    for packed, place in zip(content["rows"], places, strict=True):
        packed["table"] = place


def _precisions(tables: Iterable[Table]) -> list[str]:
    return sorted({p for table in tables for p in table.columns}, key=precision_rank)


def _groups(source: Source, tables: Sequence[Table], task: str) -> dict[str, Any]:
    boards = [board for board in source.tables.boards if board.facts["task"] == task]
    return {"groups": _group_facts(boards)} if tables else {}


def _group_facts(boards: Iterable[Board]) -> dict[str, dict[str, Any]]:
    """Return what the rows of each group share."""
    return {
        board.group: {name: board.facts[name] for name in BOARD} | {"images": board.images}
        for board in boards
    }


def _delta(cell: Cell) -> list[Any]:
    """Return Delta_B: its text, its value (null where blank) and what it is made of or why it is blank."""
    blank = math.isnan(cell.value)
    return [
        cell.printed or number(cell.value),
        None if blank else round(cell.value, _DIGITS),
        cell.reason,
    ]


def _known(value: float) -> float | None:
    """Round to what the CSV has; None where the value is unknown."""
    return None if math.isnan(value) else round(value, _DIGITS)
