"""What a page's sections read, made from a frame instead of a folder of results."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.planning.plan_file import PlannedSuite
from lowbit.benchmark.results.comparability import normalize


def make_source(
    rows: pd.DataFrame | list[dict],
    *,
    planned: Iterable[PlannedSuite] = (),
    runs_dir: Path = Path("no such folder"),
) -> Source:
    """Return the source of these rows of a results frame."""
    return Source(Tables(normalize(pd.DataFrame(rows)), planned), runs_dir)
