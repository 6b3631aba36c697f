"""Which detections two runs on the same images share."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask
from scipy.optimize import linear_sum_assignment

SCORE = 0.5
IOU = 0.9


class Shared(NamedTuple):
    """Detections of two runs.

    Attributes:
        first, second: how many each run has.
        pairs: how many of them both have.
    """

    first: int
    second: int
    pairs: int

    @property
    def share(self) -> float | None:
        """The share that the other run has too, 2 `pairs` / (`first` + `second`); None without any."""
        total = self.first + self.second
        return 2 * self.pairs / total if total else None


def shared(
    first: Iterable[dict[str, Any]],
    second: Iterable[dict[str, Any]],
    *,
    score: float = SCORE,
    iou: float = IOU,
) -> Shared:
    """Pair the detections of two runs, each with at most one; as many pairs as there can be.

    Two detections make a pair if they are of one image and class and their boxes overlap, or are equal.

    Args:
        first, second: of the runs, in COCO's result format.
        score: lower-scored detections are left out, of both runs.
        iou: the least overlap.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}
        >>> shared([box], [box, box | {"category_id": 2}]).share
        0.6666666666666666
    """
    ours, theirs = _boxes(first, score), _boxes(second, score)
    pairs = 0
    for key in ours.keys() & theirs.keys():
        one, other = (np.asarray(part[key], float) for part in (ours, theirs))
        close = mask.iou(one, other, np.zeros(len(other))) >= iou
        close |= (one[:, None] == other).all(2)  # boxes without an area overlap nothing
        rows, columns = linear_sum_assignment(close, maximize=True)
        pairs += int(close[rows, columns].sum())
    return Shared(*(sum(map(len, part.values())) for part in (ours, theirs)), pairs)


def _boxes(detections: Iterable[dict[str, Any]], score: float) -> dict[tuple, list[list[float]]]:
    found: dict[tuple, list[list[float]]] = defaultdict(list)
    for one in detections:
        if one["score"] >= score:
            found[one["image_id"], one["category_id"]].append(one["bbox"])
    return found
