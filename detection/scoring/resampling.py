"""Average precision where images are left out or repeated, on many draws of them at once.

The matching of detections with objects does not depend on the other images, so it is done once, and a
draw only changes how often an image counts. Recall rises at hits alone, and between two hits only the
number of detections matters, so the sum is a product of a sparse matrix with the weights.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lowbit.detection.scoring.matches import AREAS, HIT, IGNORED, IOUS, RECALLS, Matches

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_AT_ONCE = 500  # draws; a class of 10,000 objects then takes 20 MB per array

Steps = Callable[[np.ndarray], np.ndarray]
"""Share of a class's AP that each of its hits' precision decides, given the recalls there in %; (hits, draws)."""


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


def resample(matches: Matches, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return COCO's average precision by metric on every draw, (draws,) in %; NaN where undefined.

    If no two detections of a class in one image have equal scores, these are pycocotools' numbers
    for a set in which each image occurs as often as it was drawn.

    Args:
        matches: detections and objects.
        weights: (I, draws) how often each image counts, in the order of their ids.
    """
    areas = 100 * mean_precisions(matches, weights, at_recalls(RECALLS))  # (A, T, draws)
    every = areas.mean(axis=1)
    half, three_quarters = (int(np.argmin(abs(IOUS - at))) for at in (0.5, 0.75))
    values = (every[0], areas[0, half], areas[0, three_quarters], *every[1 : len(AREAS)])
    return dict(zip(METRICS, values, strict=True))


def at_recalls(recalls: np.ndarray) -> Steps:
    """Return the steps of the mean over the best precisions at evenly spaced recalls from 0 to 1.

    A margin makes rounding agree with double precision: 0.29 is reached by 29 of 100 objects, unless
    the 0.29 among the recalls is the next number above.
    """
    last = len(recalls) - 1
    even = np.arange(last + 1) / last
    edges = (100 * even + np.where(recalls > even, 1e-3, -1e-3)).astype(np.float32)

    def steps(recall: np.ndarray) -> np.ndarray:
        nearest = np.rint(recall * np.float32(last / 100)).astype(np.int8)
        reached = (nearest + (recall >= edges[nearest])).astype(np.float32)
        return np.diff(reached, axis=0, prepend=np.float32(0)) / np.float32(len(recalls))

    return steps


def under_curve(recall: np.ndarray) -> np.ndarray:
    """Return the steps of the area under the best precisions."""
    return np.diff(recall, axis=0, prepend=np.float32(0)) / 100


def mean_precisions(matches: Matches, weights: np.ndarray, steps: Steps) -> np.ndarray:
    """Return the mean over the classes with objects in a draw of their AP, (A, T, draws)."""
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    shape = (*matches.outcome.shape[:2], weights.shape[1])
    total, classes = np.zeros(shape), np.zeros((shape[0], 1, shape[2]))
    for area, ranking in _rankings(matches):
        objects = ranking.objects.astype(np.float32) @ weights  # (draws,)
        classes[area, 0] += objects > 0
        for start in range(0, shape[2], _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            total[area, :, part] += _class_precisions(
                ranking, weights[:, part], objects[part], steps
            )
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
    ranking: _Ranking, weights: np.ndarray, objects: np.ndarray, steps: Steps
) -> np.ndarray:
    """Return one class's AP (T, draws): the best precision at or above each recall, by `steps`."""
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
        shares = steps(right * (100 / np.maximum(objects, 1)))
        found[threshold] = np.einsum("hd,hd->d", precision, shares)
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
