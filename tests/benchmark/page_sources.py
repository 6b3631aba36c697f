"""What a page's sections read, made from a frame instead of a folder of results."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lowbit.benchmark.leaderboard.boards import make_boards
from lowbit.benchmark.leaderboard.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.page import Source
from lowbit.benchmark.planning.plan_file import PlannedSuite
from lowbit.benchmark.results.comparability import normalize


def make_source(
    rows: pd.DataFrame | list[dict],
    *,
    planned: Iterable[PlannedSuite] = (),
    runs_dir: Path = Path("no such folder"),
) -> Source:
    """Return the source of these rows of a results frame."""
    frame = normalize(pd.DataFrame(rows))
    folded = fold_seeds(frame)
    return Source(frame, folded, tuple(make_boards(folded)), tuple(planned), runs_dir)
