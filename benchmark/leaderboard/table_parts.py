"""The parts of a table: its cells, and its rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOTICED_ROUNDING = 1.0  # % of predictions


@dataclass
class Cell:
    """One number of a board with its details, or why there is none.

    Attributes:
        value, sd, low, high: in the metric's unit; NaN where unknown.
        interval: what `low` and `high` are over: "seeds", or "images" of a single seed; "" where unknown.
        stderr: standard error over the test images, in the same unit; NaN where unknown.
        n_seeds: seeds averaged; 0 when there is no number.
        n_jobs: jobs averaged; more than `n_seeds` when two recipes share a label and a seed.
        rank: see `lowbit.benchmark.statistics.ranking.rank_groups`.
        best: rank 1, if the tests found at least one row of the column worse.
        drop: value minus the same line's value in full precision; NaN where there is none.
        status, reason: completed, failed or skipped; why, or how a number that was sent was checked.
        printed: how the number is written where one decimal of a percentage is not how: as its paper
            prints it, or a size, a ratio, a count.
        zero_shot: the network was trained at other bit-widths only.
        rounding: share of predictions, in %, that rounding alone decides; NaN where unknown.
        warning: why an interval over test images may be too narrow; "" where nothing speaks for that.
        missing: jobs of this cell that gave no number although others did.
        of_method: it is over pretrainings, which `n_seeds` and `sd` count; else over the scoring seeds of
            one, and its rank is that of a file.
        scorings, scoring_sd: of a method, the fewest scoring seeds of a pretraining, and their spread.
    """

    value: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    stderr: float = math.nan
    n_seeds: int = 0
    n_jobs: int = 0
    rank: int = 0
    best: bool = False
    drop: float = math.nan
    status: str = "completed"
    reason: str = ""
    printed: str = ""
    zero_shot: bool = False
    rounding: float = math.nan
    warning: str = ""
    missing: int = 0
    of_method: bool = False
    scorings: int = 0
    scoring_sd: float = math.nan

    @property
    def depends_on_rounding(self) -> bool:
        """Whether rounding decides enough predictions for another machine's number to differ."""
        return self.rounding >= NOTICED_ROUNDING


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        labels: the text in front of its numbers, in the order of the table's `labels`.
        cells: its numbers by column; a column that is absent was not planned.
        facts: all that is known of the row by name, to search, filter and group by.
    """

    labels: tuple[str, ...]
    cells: Mapping[str, Cell]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows that share their columns.

    Attributes:
        labels: names of the leading columns of text.
        columns: names of the columns of numbers.
        note: how to read it; "" where the general note says enough.
        gaps: what is left out or blank, a sentence each.
        facts: what its rows share, by name.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    gaps: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
