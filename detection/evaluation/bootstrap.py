"""Bootstrap average precision over the test images, by image weights.

Drawing n of n images with replacement gives every image a weight: how often it was drawn. The matching
of detections with objects does not change, so pycocotools matches once, and each draw only sums weights
along the detections sorted by score. Between two matches only the number of detections matters, so
the sum is a product of a sparse matrix with the weights.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lowbit.detection.evaluation.matches import AREAS, HIT, IGNORED, IOUS, RECALLS, Matches

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first entries of COCOeval.stats
DRAWS = 1000
LEVEL = 0.95  # of the intervals
_AT_ONCE = 500  # draws; a class of 10,000 objects then takes 20 MB per array
_UNDEFINED = (
    0.05  # largest share of draws without an object for a metric that still gives an interval
)


class Spread(NamedTuple):
    """Standard error over the test images, and the 95 % percentile interval, in %."""

    stderr: float
    low: float
    high: float


class _Ranking(NamedTuple):
    """A class's detections in an area range by falling score; T thresholds of IoU, D detections.

    Attributes:
        images: (D,) positions of their images.
        hits: (T, D) whether they match an object that counts.
        scored: (T, D) whether they count, as hits or as misses.
        objects: (I,) number of counted objects in each image.
    """

    images: np.ndarray
    hits: np.ndarray
    scored: np.ndarray
    objects: np.ndarray


def draw_images(n: int, draws: int = DRAWS, *, seed: int = 0) -> np.ndarray:
    """Return how often each of n images is drawn in each draw of n: (n, draws), deterministic."""
    shares = np.full(n, 1 / n)
    return np.random.default_rng(seed).multinomial(n, shares, size=draws).T


def redraw(matches: Matches, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return average precision by metric on every draw, (draws,) in %; NaN where undefined.

    If no two detections of a class in one image have equal scores, these are pycocotools' numbers
    for a set in which each image occurs as often as it was drawn.

    Args:
        matches: detections and objects.
        weights: (I, draws) integers by image, in the order of their ids.
    """
    areas = _precisions(matches, np.ascontiguousarray(weights, dtype=np.float32))
    every = areas.mean(axis=1)
    half, three_quarters = (int(np.argmin(abs(IOUS - at))) for at in (0.5, 0.75))
    values = (every[0], areas[0, half], areas[0, three_quarters], *every[1:])
    return {name: 100 * value for name, value in zip(METRICS, values, strict=True)}


def spread(values: np.ndarray) -> Spread | None:
    """Summarize a metric's draws; None where they are not informative.

    That is if they are all equal (every object was found, or none), or if more than 1 in 20 has no
    object for the metric.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < (1 - _UNDEFINED) * len(values) or np.ptp(defined) < 1e-4:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Spread(float(defined.std(ddof=1)), float(low), float(high))


def _precisions(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Return AP by area range, threshold and draw: the mean over the classes with objects in the draw."""
    shape = (len(AREAS), len(IOUS), weights.shape[1])
    total, classes = np.zeros(shape), np.zeros((shape[0], 1, shape[2]))
    edges = _edges(RECALLS)
    for area, ranking in _rankings(matches):
        objects = ranking.objects.astype(np.float32) @ weights  # (draws,)
        classes[area, 0] += objects > 0
        for start in range(0, shape[2], _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found = _class_precisions(ranking, weights[:, part], objects[part], edges)
            total[area, :, part] += found
    return np.divide(total, classes, out=np.full(shape, np.nan), where=classes > 0)


def _rankings(matches: Matches) -> Iterator[tuple[int, _Ranking]]:
    """Yield the rankings of every class with objects, with the index of their area range."""
    for area, number in enumerate(matches.objects):
        for place in np.flatnonzero(number):
            here = slice(matches.starts[place], matches.starts[place + 1])
            outcome = matches.outcome[area, :, here]
            own = matches.counted[area] & (matches.object_class == place)
            objects = np.bincount(matches.object_image[own], minlength=matches.images)
            yield area, _Ranking(matches.image[here], outcome == HIT, outcome != IGNORED, objects)


def _class_precisions(
    ranking: _Ranking, weights: np.ndarray, objects: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """Return one class's AP (T, draws): the mean over 101 recalls of the best precision at or above each."""
    found = np.zeros((len(ranking.hits), weights.shape[1]))
    stops = np.flatnonzero(ranking.hits.any(axis=0))  # recall rises only here
    ever = ranking.scored.any(axis=0)
    scored = _summed(ranking.images, ever, stops, weights)
    for threshold, hits in enumerate(ranking.hits[:, stops]):
        if not hits.any():
            continue
        right = _running(np.add, weights[ranking.images[stops[hits]]])  # (hits, draws)
        counted = scored[hits]
        ignored = ever & ~ranking.scored[threshold]
        if ignored.any():
            counted -= _summed(ranking.images, ignored, stops[hits], weights)
        precision = right / np.maximum(counted, 1)
        _running(np.maximum, precision[::-1])
        recall = right * (100 / np.maximum(objects, 1))
        nearest = np.rint(recall).astype(np.int8)
        reached = (nearest + (recall >= edges[nearest])).astype(np.float32)  # of the 101 recalls
        newly = np.diff(reached, axis=0, prepend=np.float32(0))
        found[threshold] = np.einsum("hd,hd->d", precision, newly) / 101
    return found


def _summed(
    images: np.ndarray, chosen: np.ndarray, stops: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the summed weights of the chosen detections up to and including each stop: (stops, draws)."""
    places = np.flatnonzero(chosen)
    rows = np.searchsorted(stops, places)
    before = rows < len(stops)  # later detections change nothing
    entries = (rows[before], images[places[before]])
    ones = np.ones(len(entries[0]), dtype=np.float32)
    counts = sparse.csr_array((ones, entries), shape=(len(stops), len(weights)))
    return _running(np.add, np.asarray(counts @ weights))


def _running(ufunc: np.ufunc, rows: np.ndarray) -> np.ndarray:
    """Accumulate `rows` in place, row by row; `ufunc.accumulate` is four times slower on wide rows."""
    for above, row in pairwise(rows):
        ufunc(above, row, out=row)
    return rows


def _edges(recalls: np.ndarray) -> np.ndarray:
    """Return the recalls in %, with a margin so that rounding agrees with pycocotools.

    0.29 is reached by 29 of 100 objects unless pycocotools' 0.29 is the next number above.
    """
    percent = np.arange(101)
    return (percent + np.where(recalls > percent / 100, 1e-3, -1e-3)).astype(np.float32)
