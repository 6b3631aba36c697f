"""What a page's sections read, made from a frame instead of a folder of results."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from benchmark.boards import make_boards
from benchmark.comparability import normalize
from benchmark.folding import fold_seeds
from benchmark.page import Source
from benchmark.planned import PlannedSuite


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
