"""Coverage of intervals of average precision, and of differences between two detectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lowbit.detection.evaluation.voc_average_precision import ELEVEN, class_precisions
from lowbit.detection.scoring.half_samples import SMOOTH
from lowbit.detection.scoring.matches import RECALLS, Matches
from lowbit.detection.scoring.precision_recall import precisions, recalls, summarize
from lowbit.detection.scoring.resampling import (
    METRICS,
    at_recalls,
    mean_precisions,
    resample,
    under_curve,
)
from lowbit.tools.coverage.intervals import WAYS, intervals, split, weights
from lowbit.tools.coverage.simulated_images import Population

VOC = ("AP50_voc07", "AP50_voc12")
COMPARED = ("AP", *VOC)  # of two detectors
_LEAD = " of A - B"
_HALVES, _BOOTSTRAP, _GROUPS = 200, 200, 40
_PART = 50_000  # images of the population drawn at once


@dataclass(frozen=True)
class Cell:
    """A kind of test set, and how many of them are drawn."""

    classes: int
    skew: float
    objects: float  # in an image
    images: int
    replications: int


@dataclass(frozen=True)
class Row:
    """How one metric's intervals did in a cell.

    Attributes:
        rarest: average number of objects of the rarest class that the metric counts.
        truth: the metric of the population, in %.
        error: standard deviation of the metric over the sets.
        bias: mean of the metric over the sets less the truth.
        covered: share of the sets whose interval holds the truth, in %, by way.
    """

    cell: Cell
    metric: str
    rarest: float
    truth: float
    error: float
    bias: float
    covered: dict[str, float]


def rows(cells: list[Cell], *, population: int) -> Iterator[Row]:
    """Measure each cell; the truths are those of `population` images, drawn once for each kind."""
    truths: dict[tuple, dict[str, float]] = {}
    for cell in cells:
        kind = (cell.classes, cell.skew, cell.objects)
        made = Population(*kind)
        if kind not in truths:
            truths[kind] = _truth(made, population)
        yield from _measure(cell, made, truths[kind])


def _truth(made: Population, images: int) -> dict[str, float]:
    draw = np.random.default_rng(1)
    found = []
    for _ in range(max(1, images // _PART)):
        ours, theirs = map(_all_images, made.draw(draw, _PART))
        found.append(ours | {name + _LEAD: ours[name] - theirs[name] for name in COMPARED})
    return {name: float(np.mean([part[name] for part in found])) for name in found[0]}


def _all_images(matches: Matches) -> dict[str, float]:
    """Return a detector's metrics without resampling, which takes longer where images are many."""
    twelve = summarize(precisions(matches), recalls(matches))
    voc = class_precisions(matches)[:, 0].mean(axis=0)
    shares = {name: twelve[name] for name in METRICS} | dict(zip(VOC, voc.tolist(), strict=True))
    return {name: 100 * share for name, share in shares.items()}


def _measure(cell: Cell, made: Population, truth: dict[str, float]) -> Iterator[Row]:
    draw = np.random.default_rng(2)
    values: dict[str, list[float]] = {name: [] for name in truth}
    held: dict[str, list[dict[str, bool]]] = {name: [] for name in truth}
    groups = min(cell.images, _GROUPS)
    for replication in range(cell.replications):
        first, second = made.draw(draw, cell.images)
        drawn = weights(
            cell.images, halves=_HALVES, bootstrap=_BOOTSTRAP, groups=groups, seed=replication
        )
        every = {
            name: split(found, cell.images, halves=_HALVES, bootstrap=_BOOTSTRAP)
            for name, found in _numbers(first, second, drawn).items()
            if not np.isnan(found[0])
        }
        for name, draws in every.items():
            metric, lead = name.removesuffix(_LEAD), name.endswith(_LEAD)
            smooth = every[SMOOTH.get(metric, metric) + _LEAD * lead]
            known = intervals(draws, smooth, difference=lead)
            values[name].append(draws.value)
            held[name].append({way: a <= truth[name] <= b for way, (a, b) in known.items()})
    least = cell.images * cell.objects * made.shares.min()
    sizes = dict(zip(("APs", "APm", "APl"), (0.4, 0.35, 0.25), strict=True))
    for name, found in values.items():
        yield Row(
            cell,
            name,
            rarest=least * sizes.get(name, 1.0),
            truth=truth[name],
            error=float(np.std(found, ddof=1)),
            bias=float(np.mean(found) - truth[name]),
            covered={way: 100 * float(np.mean([one[way] for one in held[name]])) for way in WAYS},
        )


def _numbers(first: Matches, second: Matches, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return all metrics of the first detector, and its lead over the second, on every draw."""
    second = second._replace(outcome=second.outcome[:1], counted=second.counted[:1])
    theirs = {"AP": 100 * mean_precisions(second, drawn, at_recalls(RECALLS))[0].mean(axis=0)}
    ours, theirs = resample(first, drawn) | _voc(first, drawn), theirs | _voc(second, drawn)
    return ours | {name + _LEAD: ours[name] - theirs[name] for name in COMPARED}


def _voc(matches: Matches, drawn: np.ndarray) -> dict[str, np.ndarray]:
    half = matches._replace(outcome=matches.outcome[:1, :1], counted=matches.counted[:1])
    found = (mean_precisions(half, drawn, each)[0, 0] for each in (at_recalls(ELEVEN), under_curve))
    return {name: 100 * values for name, values in zip(VOC, found, strict=True)}
