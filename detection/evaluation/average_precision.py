"""COCO's average precision of detections in COCO's format, for every engine."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lowbit.detection.evaluation.bootstrap import Spread, draw_images, redraw, spread
from lowbit.detection.evaluation.matches import Matches
from lowbit.detection.evaluation.matching import match
from lowbit.detection.evaluation.precision_recall import precisions, recalls, summarize


class Scores(NamedTuple):
    """Average precision in percent: over all classes by metric, and AP by class.

    A metric without annotated objects (APl without a large object) is left out, and so is a class
    without objects. `spreads` are bootstrap errors of the overall numbers over the images; empty if
    not requested or not known.
    """

    overall: dict[str, float]
    classes: dict[str, float]
    spreads: dict[str, Spread] = {}


def evaluate(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the overall average precisions; see `score`."""
    return score(truth, detections).overall


def score(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    iou_type: str = "bbox",
    draws: int = 0,
) -> Scores:
    """Score detections: AP (mean over IoU .50:.05:.95), AP50, AP75, and AP by area and class.

    The numbers are pycocotools', to the last bit. APs, APm and APl are for objects under 32², up to 96²
    and over 96² pixels. Without any detection the result is 0, where pycocotools fails and Detectron2
    returns nan.

    Args:
        truth: annotations in COCO's format.
        detections: dictionaries with image_id, category_id, score and bbox (x, y, width, height) or,
            for masks, segmentation (run-length encoded).
        iou_type: "bbox", of boxes, or "segm", of masks.
        draws: bootstrap draws of the images, for the spreads.

    Raises:
        ValueError: there is no annotated object, so precision is not defined; or a detection is of an
            image that the set does not have.
    """
    matches = match(truth, detections, iou_type=iou_type)
    precision = precisions(matches)
    overall = dict(list(summarize(precision, recalls(matches)).items())[:6])
    names = {category["id"]: category["name"] for category in truth["categories"]}
    classes = {
        names[category_id]: float(np.mean(precision[:, :, place, 0]))
        for place, category_id in enumerate(sorted(names))
    }
    # -1 stands for a metric without objects.
    scores = ({n: 100 * v for n, v in part.items() if v >= 0} for part in (overall, classes))
    return Scores(*scores, _spreads(matches, draws) if draws else {})


def _spreads(matches: Matches, draws: int) -> dict[str, Spread]:
    drawn = redraw(matches, draw_images(matches.images, draws))
    found = {name: spread(values) for name, values in drawn.items()}
    return {name: known for name, known in found.items() if known}
