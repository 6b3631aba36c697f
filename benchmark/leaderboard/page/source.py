"""The input of the page's sections."""

from dataclasses import dataclass
from pathlib import Path

from lowbit.benchmark.leaderboard.tables import Tables


@dataclass(frozen=True)
class Source:
    """The tables of one runs folder, and the folder for what stands in the jobs' own files."""

    tables: Tables
    runs_dir: Path
