"""Means over data sets, only of checkpoints that have a number on every one of the same data sets.

A *family* of boards differs in the data set alone (its split and image size with it): same task,
protocol, engine and policy. Two means are comparable if they are over the same sets, and a checkpoint
that skips a hard set must not gain by it. So at each precision the largest set of data sets is averaged
that at least two checkpoints have in common; checkpoints that lack one are listed as left out.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

from lowbit.benchmark.leaderboard.table_parts import Cell
from lowbit.benchmark.results.comparability import (
    BOARD,
    SUBJECT,
    precision_rank,
    protocol_rank,
    rankable,
)
from lowbit.benchmark.statistics.ranking import ALPHA, rank_by_holm, standard_errors

NOTE = (
    "Each data set counts once. The 95 % interval is over seeds where every data set has several, else "
    "over the test images. The rank is 1 + how many checkpoints are found better (paired t-tests over the "
    "data sets, Holm, 5 %)."
)
_ROUNDING = 1e-5  # percentage points: an error below is what rounding leaves of none
_OF_DATA_SET = ("dataset", "split_sha256", "image_size")
FAMILY = tuple(column for column in BOARD if column not in _OF_DATA_SET)


@dataclass(frozen=True)
class Average:
    """A family's table in one metric: the precisions that are averaged over the same data sets.

    Attributes:
        facts: the family, by the columns of FAMILY.
        metric: what is averaged.
        datasets: what it is averaged over; a board's letter follows a name that two boards share.
        means: by subject (a tuple of the columns of SUBJECT), then by precision; best first. Each has
            its 95 % interval where it is known and its rank, see `NOTE`, and counts no seed.
        left_out: by precision, what each subject without a mean lacks.
        dropped: by precision, the data sets of the family that are not averaged over.
    """

    facts: dict[str, str]
    metric: str
    datasets: tuple[str, ...]
    means: dict[tuple[str, ...], dict[str, Cell]]
    left_out: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def precisions(self) -> list[str]:
        """The columns, from full precision down."""
        return sorted({p for cells in self.means.values() for p in cells}, key=precision_rank)

    @property
    def notes(self) -> list[str]:
        """List what was left out, and why."""
        found = [
            f"{precision}: not averaged over {', '.join(names)}, which no two checkpoints here share "
            "with the rest."
            for precision, names in self.dropped.items()
        ]
        for precision, subjects in self.left_out.items():
            lacks = "; ".join(f"{s[0]} lacks {', '.join(names)}" for s, names in subjects.items())
            found.append(f"{precision}: no mean where a data set is missing: {lacks}.")
        return found


def averages(folded: pd.DataFrame) -> list[Average]:
    """Return the means of folded results, a table a family, metric and set of data sets.

    A family with one data set has none.
    """
    ranked = folded[rankable(folded)]
    tables: dict[tuple, Average] = {}
    families = ranked.groupby([*FAMILY, "metric"], sort=False)
    for key, family in sorted(families, key=lambda item: family_order(item[0])):
        names = names_of_data_sets(family)
        by_precision = sorted(
            family.groupby("precision", sort=False), key=lambda item: precision_rank(item[0])
        )
        for precision, rows in by_precision:
            _add(tables, key, precision, rows, names)
    return [best_first(table) for table in tables.values()]


def _add(
    tables: dict[tuple, Average], key: tuple, precision: str, rows: pd.DataFrame, names: dict
) -> None:
    """Average one precision of a family, into the table over the same data sets."""
    row, subjects = pd.MultiIndex.from_frame(rows[list(SUBJECT)]).factorize()
    place = {group: at for at, group in enumerate(names)}
    column = rows["group"].map(place).to_numpy()
    numbers = {}
    for name in ("value", "sd", "n_seeds", "stderr"):
        numbers[name] = np.full((len(subjects), len(names)), np.nan)  # (subjects, data sets)
        numbers[name][row, column] = rows[name].to_numpy(dtype=float)
    has = ~np.isnan(numbers["value"])
    chosen = shared_data_sets(has)
    if chosen.sum() < 2:
        return
    labels = np.array(list(names.values()))
    full = has[:, chosen].all(axis=1)
    means = _means(*(numbers[name][full][:, chosen] for name in numbers))
    table = tables.setdefault(
        (key, *labels[chosen]),
        Average(
            facts=dict(zip(FAMILY, map(str, key), strict=False)),
            metric=key[-1],
            datasets=tuple(labels[chosen].tolist()),
            means={},
        ),
    )
    for subject, mean in zip(subjects[full], means, strict=True):
        table.means.setdefault(subject, {})[precision] = mean
    for subject, lacks in zip(subjects[~full], ~has[~full] & chosen, strict=True):
        absent = tuple(labels[lacks].tolist())
        table.left_out.setdefault(precision, {})[subject] = absent
    if (dropped := has.any(axis=0) & ~chosen).any():
        table.dropped[precision] = tuple(labels[dropped].tolist())


def shared_data_sets(has: np.ndarray) -> np.ndarray:
    """Choose data sets (subjects, data sets) -> (data sets): the most that two subjects have in common.

    Of several choices the one that most subjects have; of one subject alone, what it has.
    """
    covers, count = np.unique(has, axis=0, return_counts=True)
    both = [one & other for one, other in combinations(covers, 2)]
    candidates = [*covers[count > 1], *both]
    candidates = [c for c in candidates if c.sum() > 1] or [*covers]

    def merit(candidate: np.ndarray) -> tuple:
        owners = count[(covers | ~candidate).all(axis=1)].sum()
        return (candidate.sum(), owners, candidate.tolist())

    return max(candidates, key=merit)


def _means(value: np.ndarray, sd: np.ndarray, n: np.ndarray, stderr: np.ndarray) -> list[Cell]:
    """Return the means of rows (subjects, data sets) with intervals and ranks.

    Seeds and images of different data sets are independent, so their squared errors add up. Over seeds
    the degrees of freedom are Welch's and Satterthwaite's.
    """
    sets = value.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = sd**2 / n
        freedom = variances.sum(axis=1) ** 2 / (variances**2 / (n - 1)).sum(axis=1)
        by_seeds = standard_errors(freedom) * np.sqrt(variances.sum(axis=1)) / sets
    by_images = special.ndtri(1 - ALPHA / 2) * np.sqrt((stderr**2).sum(axis=1)) / sets
    seeds, images = by_seeds > 0, by_images > 0  # NaN: a data set has a single seed, or no error
    half = np.where(seeds, by_seeds, np.where(images, by_images, np.nan))
    interval = np.where(seeds, "seeds", np.where(images, "images", ""))
    mean = [math.fsum(row) / sets for row in value]
    ranks = _ranks(value)
    return [
        Cell(value=m, low=m - h, high=m + h, interval=i, rank=rank, best=rank == 1 < max(ranks))
        for m, h, i, rank in zip(mean, half.tolist(), interval.tolist(), ranks, strict=True)
    ]


def _ranks(values: np.ndarray) -> list[int]:
    """Rank rows (subjects, data sets) by paired t-tests over the data sets, all pairs, Holm."""
    sets = values.shape[1]
    means = values.mean(axis=1)
    apart = values - means[:, None]  # centered: (subjects, data sets)
    squares = np.square(apart).sum(axis=1)

    def score(rows: slice) -> np.ndarray:
        """|t| of the differences, their variance from those of both sides and their covariance."""
        variance = squares[rows, None] + squares - 2 * apart[rows] @ apart.T
        error = np.sqrt(np.maximum(variance, 0) / (sets - 1) / sets)
        difference = np.abs(means[rows, None] - means)
        return np.divide(difference, error, out=np.zeros_like(error), where=error > _ROUNDING)

    return rank_by_holm(means, score, lambda t: 2 * special.stdtr(sets - 1, -t))


def best_first(table: Average) -> Average:
    """Order the rows by their mean over the precisions that all of them have, then by name."""
    common = set.intersection(*(set(cells) for cells in table.means.values()))

    def order(item: tuple) -> tuple:
        subject, cells = item
        return (-math.fsum(cells[precision].value for precision in common), subject)

    rows = dict(sorted(table.means.items(), key=order))
    return Average(table.facts, table.metric, table.datasets, rows, table.left_out, table.dropped)


def names_of_data_sets(family: pd.DataFrame) -> dict[str, str]:
    """Return what to call the data set of each board of a family, in the order of the boards."""
    boards = dict(zip(family["group"], family["dataset"], strict=True))
    boards = dict(sorted(boards.items(), key=lambda item: (len(item[0]), item[0])))
    shared = {name for name, n in Counter(boards.values()).items() if n > 1}
    return {g: f"{name} ({g})" if name in shared else name for g, name in boards.items()}


def family_order(key: tuple) -> tuple:
    facts = dict(zip((*FAMILY, "metric"), key, strict=True))
    return tuple(
        protocol_rank(value) if column == "protocol" else str(value)
        for column, value in facts.items()
    )
