"""Matches by pycocotools' own evaluation, which defines them."""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lowbit.detection.scoring.matches import HIT, IGNORED, MISS, Matches


def match(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, iou_type: str = "bbox"
) -> Matches:
    """Match detections with objects by `COCOeval.evaluate`; arguments as in `matching.match`."""
    run = evaluated(truth, detections, iou_type=iou_type)
    images, areas = len(run.params.imgIds), len(run.params.areaRng)
    parts, starts = [], [0]
    object_image, object_class, counted = [], [], []
    for at in range(0, len(run.evalImgs), images * areas):  # a class
        by_area = [run.evalImgs[at + images * a : at + images * (a + 1)] for a in range(areas)]
        kept = [place for place, found in enumerate(by_area[0]) if found is not None]
        found = [[part[place] for place in kept] for part in by_area]  # (A, images with entries)
        scores = np.array([s for e in found[0] for s in e["dtScores"]])
        order = np.argsort(-scores, kind="mergesort")
        lengths = [len(e["dtScores"]) for e in found[0]]
        image = np.repeat(np.array(kept, dtype=int), lengths)[order]
        rank = np.array([place for n in lengths for place in range(n)], dtype=int)[order]
        outcome = [_outcomes(part)[:, order] for part in found]
        parts.append((image, rank, np.stack(outcome)))
        starts.append(starts[-1] + len(image))
        objects = [len(e["gtIgnore"]) for e in found[0]]
        object_image.append(np.repeat(np.array(kept, dtype=int), objects))
        object_class.append(np.full(sum(objects), len(starts) - 2))
        counted.append(
            np.array([[not i for e in part for i in e["gtIgnore"]] for part in found], bool)
        )
    image, rank, outcome = zip(*parts, strict=True)
    return Matches(
        images=images,
        starts=np.array(starts),
        image=np.concatenate(image),
        rank=np.concatenate(rank),
        outcome=np.concatenate(outcome, axis=2),
        object_image=np.concatenate(object_image),
        object_class=np.concatenate(object_class),
        counted=np.concatenate(counted, axis=1),
    )


def evaluated(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, iou_type: str = "bbox"
) -> COCOeval:
    """Return a `COCOeval` after `evaluate`; its input is copied, because it is modified."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        objects = COCO()
        objects.dataset = copy.deepcopy(truth)
        objects.createIndex()
        run = COCOeval(objects, _loaded(objects, detections, iou_type), iouType=iou_type)
        run.evaluate()
    return run


def _loaded(objects: COCO, detections: Sequence[dict[str, Any]], iou_type: str) -> COCO:
    if detections:
        # Of detections with boxes, loadRes takes the boxes' areas for the masks'.
        left_out = "bbox" if iou_type == "segm" else "segmentation"
        kept = [{k: v for k, v in d.items() if k != left_out} for d in detections]
        return objects.loadRes(copy.deepcopy(kept))
    nothing = COCO()  # loadRes cannot load an empty list
    nothing.dataset = {**objects.dataset, "annotations": []}
    nothing.createIndex()
    return nothing


def _outcomes(found: list[dict[str, Any]]) -> np.ndarray:
    """Return the outcome of every detection of a class in an area range, image by image, (T, D)."""
    if not found:
        return np.zeros((10, 0), dtype=np.int8)
    matched = np.concatenate([e["dtMatches"] for e in found], axis=1) != 0
    ignored = np.concatenate([e["dtIgnore"] for e in found], axis=1) != 0
    return np.where(ignored, IGNORED, np.where(matched, HIT, MISS)).astype(np.int8)
