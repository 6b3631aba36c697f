"""How often a board's ranks tell equal detectors apart, and find one that is better."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lowbit.benchmark.statistics.ranking import Sample, rank_groups
from lowbit.detection.scoring.half_samples import deviations, draw_halves
from lowbit.detection.scoring.matches import Matches
from lowbit.detection.scoring.resampling import resample
from lowbit.tools.coverage.simulated_images import Population

_METRIC = "AP"
_EVEN = Population(10, 0.0, 7)


@dataclass(frozen=True)
class Column:
    """A column of a board: detectors of one population, each trained with several seeds.

    `lead` is that of the first detector over the others, in the logit of the IoU and in scores.
    """

    images: int
    seeds: int
    columns: int
    rows: int = 4
    lead: float = 0.0
    population: Population = _EVEN


@dataclass(frozen=True)
class Told:
    """Shares of columns, in %: of equal rows told apart by each test; a better row found by the paired one."""

    column: Column
    unpaired: float
    paired: float
    better: float


def told(column: Column, *, lead: float) -> Told:
    """Measure a kind of column with equal rows, and with a first row that leads."""
    ties = np.mean([_apart(column, seed) for seed in range(column.columns)], axis=0)
    leads = replace(column, lead=lead)
    better = np.mean([_apart(leads, seed)[1] for seed in range(column.columns)])
    return Told(column, *(100 * float(share) for share in ties), 100 * float(better))


def _apart(column: Column, seed: int) -> tuple[bool, bool]:
    """Whether ranks tell any rows of one column apart: by standard errors alone, and paired."""
    rows = [*_rows(column, np.random.default_rng(seed))]
    unpaired = [replace(row, deviations=None, answered="") for row in rows]
    return tuple(max(rank_groups(samples)) > 1 for samples in (unpaired, rows))


def _rows(column: Column, draw: np.random.Generator) -> Iterator[Sample]:
    behind = np.repeat([0.0, *[column.lead] * (column.rows - 1)], column.seeds)
    detectors = column.population.draw(draw, column.images, behind=behind)
    at_once = np.ones((column.images, 1), dtype=np.float32), draw_halves(column.images)
    for row in range(column.rows):
        seeds = detectors[row * column.seeds : (row + 1) * column.seeds]
        values, halves = (np.stack([_average_precision(m, w) for m in seeds]) for w in at_once)
        parts = deviations(halves.mean(axis=0))
        error = float(np.sqrt(np.square(parts).sum()))
        yield Sample(tuple(values[:, 0]), error, column.images, parts, "halves")


def _average_precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    return resample(matches, weights)[_METRIC]


FULL = (Column(300, 1, 200), Column(300, 2, 100), Column(300, 3, 100), Column(1000, 1, 50))
QUICK = (Column(40, 1, 40),)
LEAD = 0.1


def rows(columns: tuple[Column, ...]) -> Iterator[Told]:
    """Yield one row of the table a kind of column."""
    for column in columns:
        yield told(column, lead=LEAD)
