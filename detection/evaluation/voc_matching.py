"""Match detections with objects as VOC's development kit does, in the form of Detectron2's evaluator.

A detection belongs to the object that it overlaps most, whether or not that is taken already: the first
above the threshold is a hit and the others are misses. Those of a difficult object count as neither.
Corners count from 1 and are inclusive. Scores have three digits and corners one, as in VOC's files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.scoring.coco_arrays import ranks
from lowbit.detection.scoring.matches import HIT, IGNORED, MISS, Matches

THRESHOLDS = np.arange(50, 100, 5) / 100  # of the IoU, (T,)
_FINE = 100  # parts of a pixel, if boxes have fractions: objects' corners are whole


def match_voc(images: DetectionSet, detections: Sequence[dict[str, Any]]) -> Matches:
    """Match detections in COCO's format with a set's objects; one range of area, which has all of them."""
    unit = _unit(images)
    image_of = {image_id: place for place, image_id in enumerate(images.ids)}
    class_of = {category_id: place for place, category_id in enumerate(images.category_ids)}
    truth = images.truth["annotations"]
    object_image = np.array([image_of[a["image_id"]] for a in truth], dtype=int)
    object_class = np.array([class_of[a["category_id"]] for a in truth], dtype=int)
    difficult = np.array([bool(a.get("difficult", 0)) for a in truth], dtype=bool)
    boxes = _object_corners(truth, unit)
    kept = [d for d in detections if d["category_id"] in class_of]
    found_image = np.array([image_of[d["image_id"]] for d in kept], dtype=int)
    found_class = np.array([class_of[d["category_id"]] for d in kept], dtype=int)
    scores = np.array([float(f"{d['score']:.3f}") for d in kept])
    corners = _detected_corners(kept, unit)
    image, outcome, starts = [], [], [0]
    for place in range(len(class_of)):
        own = np.flatnonzero(found_class == place)
        own = own[np.argsort(-scores[own])]  # Detectron2's order of equal scores
        theirs = np.flatnonzero(object_class == place)
        nearest, iou = _nearest(found_image[own], corners[own], object_image[theirs], boxes[theirs])
        image.append(found_image[own])
        outcome.append(_outcomes(nearest, iou, difficult[theirs]))
        starts.append(starts[-1] + len(own))
    positions = np.concatenate(image)
    return Matches(
        images=len(images),
        starts=np.array(starts),
        image=positions,
        rank=np.zeros(len(positions), dtype=int),  # VOC limits no number of detections
        outcome=np.concatenate(outcome, axis=1)[None],
        object_image=object_image,
        object_class=object_class,
        counted=~difficult[None],
    )


def _nearest(
    image: np.ndarray, corners: np.ndarray, object_image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the object that each detection of a class overlaps most, and the IoU; -inf without any."""
    nearest, iou = np.zeros(len(image), dtype=int), np.full(len(image), -np.inf)
    for place in np.intersect1d(image, object_image):
        ours, theirs = np.flatnonzero(image == place), np.flatnonzero(object_image == place)
        a, b = corners[ours, None], boxes[None, theirs]
        sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
        shared = np.maximum(sides, 0).prod(axis=-1)
        areas = [(box[..., 2:] - box[..., :2] + 1).prod(axis=-1) for box in (a, b)]
        ious = shared / (areas[0] + areas[1] - shared)
        best = ious.argmax(axis=1)
        nearest[ours], iou[ours] = theirs[best], ious[np.arange(len(ours)), best]
    return nearest, iou


def _outcomes(nearest: np.ndarray, iou: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """Return what becomes of a class's detections, by falling score, at each threshold, (T, D)."""
    outcome = np.full((len(THRESHOLDS), len(nearest)), MISS, dtype=np.int8)
    for threshold, limit in enumerate(THRESHOLDS):
        near = np.flatnonzero(iou > limit)
        order = near[np.argsort(nearest[near], kind="stable")]
        first = order[ranks(nearest[order]) == 0]
        outcome[threshold, first] = HIT
        outcome[threshold, near[difficult[nearest[near]]]] = IGNORED
    return outcome


def _unit(images: DetectionSet) -> int:
    """Return the parts of a pixel that corners are in: 1, or more if a box has fractions."""
    whole = all(float(v).is_integer() for a in images.truth["annotations"] for v in a["bbox"])
    return 1 if whole else _FINE


def _object_corners(annotations: list[dict[str, Any]], unit: int) -> np.ndarray:
    corners = []
    for annotation in annotations:
        x, y, width, height = (unit * value for value in annotation["bbox"])
        corners.append([round(value) for value in (x + 1, y + 1, x + width, y + height)])
    return np.array(corners, dtype=float).reshape(-1, 4)


def _detected_corners(detections: list[dict[str, Any]], unit: int) -> np.ndarray:
    boxes = np.array([d["bbox"] for d in detections], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    corners = unit * boxes.astype(np.float32)
    corners[:, :2] += 1
    digits = [float(f"{value:.1f}") for value in corners.ravel().tolist()]
    return np.array(digits, dtype=float).reshape(-1, 4)
