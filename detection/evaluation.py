"""COCO's average precision, from detections in COCO's format, the same for every engine."""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ("AP", "AP50", "AP75")  # the first three entries of COCOeval.stats


def evaluate(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return AP (mean over IoU .50:.05:.95), AP50 and AP75, in percent.

    No detection at all gives 0, where pycocotools fails and Detectron2 says nan.

    Args:
        truth: annotations in COCO's format.
        detections: dictionaries with image_id, category_id, bbox (x, y, width, height) and score.

    Raises:
        ValueError: there is no annotated object, so precision is not defined.
    """
    if not truth["annotations"]:
        raise ValueError(
            f"none of the {len(truth['images'])} images has an annotated object; average precision "
            "was not computed. Evaluate on images with objects."
        )
    if not detections:
        return dict.fromkeys(METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and table
        index = COCO()
        index.dataset = copy.deepcopy(truth)  # createIndex and loadRes write into what they get
        index.createIndex()
        results = index.loadRes(copy.deepcopy(list(detections)))
        run = COCOeval(index, results, iouType="bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: 100 * float(value) for name, value in zip(METRICS, run.stats[:3], strict=True)}


def to_detections(image_id: int, boxes, scores, labels) -> list[dict[str, Any]]:
    """Return one image's detections in COCO's format.

    Args:
        image_id: the image's id, from 1.
        boxes: (n, 4) tensor, x1 y1 x2 y2 in pixels.
        scores: (n,) tensor.
        labels: (n,) tensor, from 0.
    """
    corners = boxes.detach().cpu().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            corners, scores.detach().cpu().tolist(), labels.cpu().tolist(), strict=True
        )
    ]
