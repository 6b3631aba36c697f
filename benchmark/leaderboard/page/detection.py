"""The detection board: one row a checkpoint, way to train and precision, one column a metric."""

from typing import Any

from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.source import Source

_COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # in COCO's order; others follow by name


def content(source: Source) -> dict[str, Any]:
    """Return the rows of all detection groups; empty where there is none."""
    boards = [board for board in source.boards if board.facts["task"] == "detection"]
    if not boards:
        return {}
    found = {metric for board in boards for metric in board.metrics}
    metrics = [m for m in _COCO if m in found] + sorted(found.difference(_COCO))
    return {
        "cell": rows.CELL,
        "columns": metrics,
        "groups": rows.group_facts(boards),
        "rows": rows.detection_rows(boards, metrics),
    }
