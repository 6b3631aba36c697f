"""The classification board: one row a checkpoint, data set and protocol, one column a precision."""

from typing import Any

from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import precision_rank


def content(source: Source) -> dict[str, Any]:
    """Return the rows of all classification groups; empty where there is none."""
    boards = [board for board in source.boards if board.facts["task"] == "classification"]
    if not boards:
        return {}
    precisions = sorted({p for board in boards for p in board.precisions}, key=precision_rank)
    return {
        "cell": rows.CELL,
        "columns": precisions,
        "groups": rows.group_facts(boards),
        "rows": rows.classification_rows(boards, precisions),
    }
