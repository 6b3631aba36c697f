"""What the page is made of: every section reads this and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lowbit.benchmark.leaderboard.boards import Board
from lowbit.benchmark.planning.plan_file import PlannedSuite


@dataclass(frozen=True)
class Source:
    """The results of one runs folder in the forms that sections need.

    Attributes:
        frame: normalized results, published rows among them, one row a measurement.
        folded: the same, folded over seeds.
        boards: what may be ranked with what, made of `folded`.
        planned: the jobs of every suite that was started in the folder.
        runs_dir: where the jobs' folders are.
    """

    frame: pd.DataFrame
    folded: pd.DataFrame
    boards: tuple[Board, ...]
    planned: tuple[PlannedSuite, ...]
    runs_dir: Path
