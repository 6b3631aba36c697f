"""VOC's average precision: the numbers of Detectron2's evaluator, and their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.average_precision import Scores
from lowbit.detection.evaluation.voc_matching import THRESHOLDS, match_voc
from lowbit.detection.scoring.half_samples import draw_halves, few_objects, spreads
from lowbit.detection.scoring.matches import HIT, IGNORED, Matches
from lowbit.detection.scoring.resampling import at_recalls, mean_precisions, under_curve

ELEVEN = np.arange(0.0, 1.1, 0.1)  # points of recall
_METRICS = ("voc07", "voc12")


def score_voc(
    images: DetectionSet, detections: Sequence[dict[str, Any]], *, intervals: bool = False
) -> Scores:
    """Score detections by VOC's metrics: AP_voc07, AP50_voc07, AP75_voc07, and _voc12 likewise.

    AP is the mean over IoU .50:.05:.95 of VOC's AP, which is not COCO's AP. Difficult objects count
    neither as hits nor as misses, and the mean is over the classes with other objects. The number by
    class is AP50 of the 2007 metric, VOC's own.

    Raises:
        ValueError: every object is difficult, so precision is not defined.
    """
    matches = match_voc(images, detections)
    scored = np.flatnonzero(matches.objects[0])
    if not len(scored):
        raise ValueError(
            f"{images.split} of {images.name} has only difficult objects or none; VOC's average "
            "precision was not computed. Evaluate on images with objects."
        )
    found = class_precisions(matches)[scored]  # (classes, T, 2)
    overall = _by_metric(100 * found.mean(axis=0).T[:, :, None])
    overall = {name: float(value[0]) for name, value in overall.items()}
    classes = {images.classes[place]: 100 * float(found[i, 0, 0]) for i, place in enumerate(scored)}
    if not intervals:
        return Scores(overall, classes)
    halves = resample_voc(matches, draw_halves(matches.images))
    warnings = dict.fromkeys(overall, few_objects(matches.objects[0]))
    known = spreads(overall, halves, matches.images, warnings)
    return Scores(overall, classes, known, halves)


def resample_voc(matches: Matches, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return VOC's average precision by metric on every draw, as `resampling.resample` does COCO's."""
    steps = (at_recalls(ELEVEN), under_curve)
    return _by_metric([100 * mean_precisions(matches, weights, each)[0] for each in steps])


def _by_metric(values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Name the numbers at each threshold, (T, draws), by the 2007 and the 2012 metric."""
    found = {}
    for metric, at in zip(_METRICS, values, strict=True):
        found[f"AP_{metric}"] = at.mean(axis=0)
        found |= {
            f"AP{100 * t:.0f}_{metric}": at[i] for i, t in enumerate(THRESHOLDS) if t in (0.5, 0.75)
        }
    return found


def class_precisions(matches: Matches) -> np.ndarray:
    """Return AP by the 2007 and the 2012 metric of every class at every threshold, (K, T, 2)."""
    found = np.full((matches.classes, matches.outcome.shape[1], len(_METRICS)), np.nan)
    objects = matches.objects[0]
    for place in np.flatnonzero(objects):
        outcome = matches.outcome[0, :, matches.starts[place] : matches.starts[place + 1]]
        for threshold, row in enumerate(outcome):
            at = np.flatnonzero(row == HIT)  # recall rises, and precision is highest, only here
            right = np.arange(1.0, len(at) + 1)
            precision = right / np.cumsum(row != IGNORED)[at]
            best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            eleven = best[np.searchsorted(right / objects[place], ELEVEN)].mean()
            found[place, threshold] = eleven, best.sum() / objects[place]
    return found
