"""How boards are titled and explained, the same in every format."""

from lowbit.benchmark.leaderboard.boards import Board
from lowbit.benchmark.results.comparability import metric_name

NOTE = (
    "Mean over seeds ± standard deviation; a dagger marks a single seed. The small number is the rank: "
    "1 + how many rows are found better (Tukey-Kramer, 5 %); the first group is bold."
)
SENT = (
    "Of the numbers that others sent, verified ones follow from the predictions that came with them; "
    "self-reported ones are the sender's word and have no rank."
)
ZERO_SHOT = "§"  # marks a precision that a network was not trained at
NOTHING = "There is no result to show: no job has finished with a number yet."
_TASK_TITLES = {"classification": "Classification", "detection": "Detection"}


def title(board: Board, metric: str | None = None) -> str:
    """Name a board, and one of its metrics."""
    facts = board.facts
    name = f"{board.group}. {_TASK_TITLES[facts['task']]}: {facts['dataset']}, {facts['protocol']}"
    return f"{name}, {metric_name(metric)} (%)" if metric else f"{name} (%)"
