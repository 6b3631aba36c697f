"""Match detections with objects as COCO does, at all thresholds of IoU and ranges of area at once.

pycocotools defines the metric. IoUs are its own function's; thresholds, recalls, areas and numbers of
detections are its `Params`. `reference.match`, which gives the same matches from `COCOeval` itself in
thirty times the time, is what this is tested against and what inputs are left to whose treatment by
`COCOeval` follows from its inner workings.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

from lowbit.detection.scoring import reference
from lowbit.detection.scoring.coco_arrays import Entries, detected, objects, ranks
from lowbit.detection.scoring.matches import AREAS, HIT, IGNORED, IOUS, MISS, MOST, Matches


class _Pairs(NamedTuple):
    """Detections and objects (P,) of one image and class whose IoU reaches the lowest threshold."""

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray


def match(
    truth: dict[str, Any], detections: Iterable[dict[str, Any]], *, iou_type: str = "bbox"
) -> Matches:
    """Match detections with objects, image by image.

    Args:
        truth: annotations in COCO's format.
        detections: in COCO's result format.
        iou_type: "bbox", of boxes, or "segm", of masks.

    Raises:
        ValueError: there is no annotated object, so precision is not defined; or a detection is of an
            image that the set does not have.
    """
    if not truth["annotations"]:
        raise ValueError(
            f"none of the {len(truth['images'])} images has an annotated object; average precision "
            "was not computed. Evaluate on images with objects."
        )
    detections = list(detections)
    truths = objects(truth, iou_type)
    found = detected(truth, detections, iou_type, MOST[-1])
    repeated = len({annotation["id"] for annotation in truth["annotations"]}) < len(
        truth["annotations"]
    )
    if repeated or not (truths.is_finite and found.is_finite):
        return reference.match(truth, detections, iou_type=iou_type)
    limits = np.array(list(AREAS.values()))[:, :, None]  # (A, 2, 1)
    ignored = truths.crowd | _outside(truths.areas, limits)  # (A, G)
    outcome = np.where(_outside(found.areas, limits), IGNORED, MISS).astype(np.int8)
    outcome = np.repeat(outcome[:, None], len(IOUS), axis=1)  # (A, T, D)
    _assign(outcome, _pairs(found, truths), found, truths, ignored)
    by_class = np.lexsort((-found.scores, found.classes))  # equal scores in the order of the images
    classes = len({category["id"] for category in truth["categories"]})
    return Matches(
        images=len({image["id"] for image in truth["images"]}),
        starts=np.searchsorted(found.classes[by_class], np.arange(classes + 1)),
        image=found.images[by_class],
        rank=ranks(found.images, found.classes)[by_class],
        outcome=outcome[:, :, by_class],
        object_image=truths.images,
        object_class=truths.classes,
        counted=~ignored,
    )


def _outside(areas: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return (areas < limits[:, 0]) | (areas > limits[:, 1])


def _pairs(found: Entries, truths: Entries) -> _Pairs:
    """Compute the IoUs of the detections and objects of each class in each image."""
    parts = [_Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    lowest = IOUS.min()
    for ours, theirs in _groups(found, truths):
        crowd = truths.crowd[theirs]
        ious = mask.iou(found.shapes[ours], truths.shapes[theirs], crowd)
        near = np.nonzero(ious >= lowest)
        parts.append(_Pairs(near[0] + ours.start, near[1] + theirs.start, ious[near]))
    return _Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _groups(found: Entries, truths: Entries) -> Iterator[tuple[slice, slice]]:
    """Yield where the detections and the objects of each class in each image are, where both are."""
    width = 1 + max(found.classes.max(initial=0), truths.classes.max(initial=0))
    ours, theirs = (part.images * width + part.classes for part in (found, truths))
    both = np.intersect1d(ours, theirs)
    ends = [
        np.searchsorted(k, both, side).tolist()
        for k in (ours, theirs)
        for side in ("left", "right")
    ]
    for a, b, c, d in zip(*ends, strict=True):
        yield slice(a, b), slice(c, d)


def _assign(
    outcome: np.ndarray, pairs: _Pairs, found: Entries, truths: Entries, ignored: np.ndarray
) -> None:
    """Give each detection, the surest first, the free object of highest IoU; update `outcome`.

    Objects that do not count are taken only where no other is free, and crowds are always free. Of
    equal IoUs the last object is taken. A round gives every image and class its next detection.
    """
    taken = np.zeros((*outcome.shape[:2], len(truths.images)), dtype=bool)  # (A, T, G)
    reach = np.minimum(IOUS, 1 - 1e-10)[:, None]  # as pycocotools, for an IoU of 1
    for at, thing, iou, starts in _rounds(pairs, found):
        free = (truths.crowd[thing] | ~taken[:, :, thing]) & (iou >= reach)  # (A, T, P)
        places = np.arange(len(thing))  # pairs of a detection are by rising IoU
        worth = places + len(thing) * ~ignored[:, None, thing]
        best = np.maximum.reduceat(np.where(free, worth, -1), starts, axis=2)  # (A, T, detections)
        area, threshold, place = np.nonzero(best >= 0)
        matched = thing[best[area, threshold, place] % len(thing)]
        taken[area, threshold, matched] = True
        result = np.where(ignored[area, matched], IGNORED, HIT)
        here = at[starts][place]
        known = truths.named[matched] | (result == IGNORED)
        outcome[area[known], threshold[known], here[known]] = result[known]


def _rounds(pairs: _Pairs, found: Entries) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield, for the first, second, ... detection with pairs of each class in each image, its pairs.

    Returns:
        The detections, objects and IoUs of the pairs, sorted by detection and rising IoU, and where each
        detection's begin.
    """
    order = np.lexsort((pairs.object, pairs.iou, pairs.detection))
    at, thing, iou = (part[order] for part in pairs)
    first = np.flatnonzero(np.diff(at, prepend=-1))
    own = ranks(found.images[at[first]], found.classes[at[first]])  # of each detection with pairs
    turn = np.repeat(own, np.diff(first, append=len(at)))
    order = np.argsort(turn, kind="stable")
    at, thing, iou, turn = at[order], thing[order], iou[order], turn[order]
    begins = np.flatnonzero(np.diff(turn, prepend=-1))
    for low, high in pairwise([*begins.tolist(), len(turn)]):
        part = slice(low, high)
        yield at[part], thing[part], iou[part], np.flatnonzero(np.diff(at[part], prepend=-1))
