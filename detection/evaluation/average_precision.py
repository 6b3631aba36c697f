"""COCO's average precision of detections in COCO's format, for every engine."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from lowbit.detection.scoring.half_samples import Spread, draw_halves, few_objects, spreads
from lowbit.detection.scoring.matches import Matches
from lowbit.detection.scoring.matching import match
from lowbit.detection.scoring.precision_recall import precisions, recalls, summarize
from lowbit.detection.scoring.resampling import METRICS, resample


class Scores(NamedTuple):
    """Average precision in percent: over all classes by metric, and AP by class.

    A metric without annotated objects (APl without a large object) is left out, and so is a class
    without objects. `spreads` are errors and intervals of the overall numbers over the images, `halves` the
    numbers on random halves of them; empty if not requested or not known.
    """

    overall: dict[str, float]
    classes: dict[str, float]
    spreads: dict[str, Spread] = {}
    halves: dict[str, np.ndarray] = {}


def evaluate(truth: dict[str, Any], detections: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the overall average precisions; see `score`."""
    return score(truth, detections).overall


def score(
    truth: dict[str, Any],
    detections: Iterable[dict[str, Any]],
    *,
    iou_type: str = "bbox",
    intervals: bool = False,
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
        intervals: whether to compute the spreads and halves.

    Raises:
        ValueError: there is no annotated object, so precision is not defined; or a detection is of an
            image that the set does not have.
    """
    matches = match(truth, detections, iou_type=iou_type)
    precision = precisions(matches)
    twelve = summarize(precision, recalls(matches))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    every = {
        names[category_id]: float(np.mean(precision[:, :, place, 0]))
        for place, category_id in enumerate(sorted(names))
    }
    # -1 stands for a metric without objects.
    overall = {name: 100 * twelve[name] for name in METRICS if twelve[name] >= 0}
    classes = {name: 100 * value for name, value in every.items() if value >= 0}
    halves = resample(matches, draw_halves(matches.images)) if intervals else {}
    spread = _spreads(overall, halves, matches) if intervals else {}
    return Scores(overall, classes, spread, halves)


def _spreads(
    overall: dict[str, float], halves: dict[str, np.ndarray], matches: Matches
) -> dict[str, Spread]:
    areas = (0, 0, 0, 1, 2, 3)  # that the metrics are of
    warnings = {m: few_objects(matches.objects[a]) for m, a in zip(METRICS, areas, strict=True)}
    return spreads(overall, halves, matches.images, warnings)
