"""Turn detections into a job's measurements and artifacts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.evaluation.bootstrap import DRAWS, Spread
from lowbit.detection.evaluation.detections_file import write_detections, write_image_names
from lowbit.detection.evaluation.pictures import draw_pictures

_logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """A result's `measurements`, and AP by class (and metric) for its details."""

    measurements: list[dict[str, Any]]
    classes: dict[str, dict[str, float]]


def measure(
    images: DetectionSet, detections: Sequence[dict[str, Any]], *, precision: str, engine: str
) -> Measured:
    """Score detections by COCO's metrics and, on VOC's sets by Detectron2, by VOC's.

    COCO's have standard errors and intervals over the images; VOC's have none, because Detectron2's
    code, which computes them, does not give the image of a hit.

    Args:
        images: the test set.
        detections: in COCO's format, with the set's ids.
        precision: bits of the detector, such as "4w4a" or "FP".
        engine: the detector's engine; only Detectron2 gives VOC's numbers.

    Raises:
        ValueError: the images have no annotated object.
    """
    scores = score(images.to_coco(), detections, draws=DRAWS)
    overall, classes = dict(scores.overall), {"AP": scores.classes}
    if images.style == "voc" and engine == "detectron2":
        from lowbit.detection.evaluation.voc_average_precision import score_voc

        voc = score_voc(images, detections)
        overall |= voc.overall
        classes["AP50_voc07"] = voc.classes
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
    common = {"unit": "%", "n": len(images), "precision": precision, "split": images.split}
    measurements = [
        {"metric": name, "value": value, **common, **spread_facts(scores.spreads.get(name))}
        for name, value in overall.items()
    ]
    return Measured(measurements, classes)


def spread_facts(known: Spread | None) -> dict[str, float]:
    """Return a measurement's spread over the images; empty if unknown."""
    return known._asdict() if known else {}


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
