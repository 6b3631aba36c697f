"""Turn detections into a job's measurements and artifacts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.average_precision import Scores, score
from lowbit.detection.evaluation.detections_file import write_detections, write_image_names
from lowbit.detection.evaluation.pictures import draw_pictures
from lowbit.detection.evaluation.voc_average_precision import score_voc
from lowbit.detection.scoring.half_samples import INTERVAL, Spread

MASK = "_mask"  # ends the names of masks' metrics

_logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """A result's `measurements`, AP by class (and metric) for its details, and numbers on halves by metric."""

    measurements: list[dict[str, Any]]
    classes: dict[str, dict[str, float]]
    halves: dict[str, np.ndarray]


def measure(
    images: DetectionSet, detections: Sequence[dict[str, Any]], *, precision: str, engine: str
) -> Measured:
    """Score detections by COCO's metrics and, on VOC's sets by Detectron2, by VOC's.

    All have standard errors and intervals over the images.

    Args:
        images: the test set.
        detections: in COCO's format, with the set's ids.
        precision: bits of the detector, such as "4w4a" or "FP".
        engine: the detector's engine; only Detectron2 gives VOC's numbers.

    Raises:
        ValueError: the images have no annotated object.
    """
    scored = score_all(images, detections, engine=engine)
    overall, spreads = overall_numbers(scored)
    classes = {metric: scores.classes for metric, scores in scored.items()}
    found = ", ".join(f"{name} {value:.2f}" for name, value in overall.items())
    _logger.info(
        "%s at %s on %s of %s (n=%d): %s %%",
        engine,
        precision,
        images.split,
        images.name,
        len(images),
        found,
    )
    for warning in {known.warning for known in spreads.values()} - {""}:
        which = ", ".join(name for name, known in spreads.items() if known.warning == warning)
        _logger.warning("%s: %s", which, warning)
    common = {"unit": "%", "n": len(images), "precision": precision, "split": images.split}
    measurements = [
        {"metric": name, "value": value, **common, **spread_facts(spreads.get(name))}
        for name, value in overall.items()
    ]
    return Measured(measurements, classes, all_halves(scored))


def scores_on_the_way(
    curve: Sequence[dict[str, float]],
    at: Sequence[int],
    *,
    last: int,
    suffix: str = "",
    **common: Any,
) -> list[dict[str, Any]]:
    """Return AP after each of the iterations `at`, as the measurements `AP@1000` and so on.

    They have no error: the detections on the way are not kept.

    Args:
        curve: scores with their `iteration`, as `read_curve` gives them.
        at: iterations that were asked for; the last one's AP is the job's own.
        last: iterations of the training.
        suffix: of AP's name, as of VOC's metrics.
        common: unit, n, precision and split of the measurements.
    """
    found = {row["iteration"]: row["AP"] for row in curve if "AP" in row}
    return [
        {"metric": f"AP{suffix}@{iteration}", "value": found[iteration], **common}
        for iteration in sorted(set(at))
        if iteration != last and iteration in found
    ]


def score_all(
    images: DetectionSet, detections: Sequence[dict[str, Any]], *, engine: str
) -> dict[str, Scores]:
    """Return the scores of boxes, of masks where all have one, and VOC's, by their metric of a class."""
    truth = images.to_coco()
    found = {"AP": score(truth, detections, intervals=True)}
    if has_masks(truth, detections):
        masks = score(truth, detections, iou_type="segm", intervals=True)
        overall = {f"{name}{MASK}": value for name, value in masks.overall.items()}
        spreads = {f"{name}{MASK}": known for name, known in masks.spreads.items()}
        halves = {f"{name}{MASK}": values for name, values in masks.halves.items()}
        found[f"AP{MASK}"] = Scores(overall, masks.classes, spreads, halves)
    if images.style == "voc" and engine == "detectron2":
        found["AP50_voc07"] = score_voc(images, detections, intervals=True)
    return found


def has_masks(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> bool:
    """Whether every detection and every object has a mask."""
    entries = (*detections, *truth["annotations"])
    return bool(detections) and all(entry.get("segmentation") for entry in entries)


def overall_numbers(scored: dict[str, Scores]) -> tuple[dict[str, float], dict[str, Spread]]:
    """Return all numbers over all classes, and their spreads, by metric."""
    overall: dict[str, float] = {}
    spreads: dict[str, Spread] = {}
    for scores in scored.values():
        overall |= scores.overall
        spreads |= scores.spreads
    return overall, spreads


def all_halves(scored: dict[str, Scores]) -> dict[str, np.ndarray]:
    """Return all numbers on halves of the images, by metric."""
    return {name: values for scores in scored.values() for name, values in scores.halves.items()}


def spread_facts(known: Spread | None) -> dict[str, Any]:
    """Return a measurement's spread over the images; empty if unknown."""
    if known is None:
        return {}
    facts = {"stderr": known.stderr, "low": known.low, "high": known.high, "interval": INTERVAL}
    return facts | ({"warning": known.warning} if known.warning else {})


def keep(
    folder: str | Path,
    images: DetectionSet,
    detections: Sequence[dict[str, Any]],
    *,
    suffix: str = "",
) -> dict[str, str]:
    """Write detections and pictures of them to a job's folder; return the artifacts' paths in it.

    Args:
        folder: the job's folder.
        images: the test set.
        detections: in COCO's format, with the set's ids.
        suffix: appended to the names, such as "_4w4a", if a job keeps several precisions.
    """
    name = write_detections(folder, detections, name=f"detections{suffix}.json")
    pictures = draw_pictures(folder, images, detections, suffix=suffix)
    names = write_image_names(folder, images)
    return {f"detections{suffix}": name, **names, **pictures}
