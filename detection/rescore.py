"""Score a job's saved detections again, on its test images or on random halves of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.detection.evaluation.measurements import MASK, has_masks, measure
from lowbit.detection.evaluation.voc_average_precision import resample_voc
from lowbit.detection.evaluation.voc_matching import match_voc
from lowbit.detection.recipe import Recipe
from lowbit.detection.scoring.half_samples import draw_halves
from lowbit.detection.scoring.matching import match
from lowbit.detection.scoring.resampling import resample
from lowbit.detection.stage import scored_set, split_sha256


def rescore(
    recipe: Recipe, files: Mapping[str, Path], *, identity: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Compute the measurements again from saved detections.

    Args:
        recipe: the job's recipe.
        files: its detections, by precision.
        identity: its identity: the engine, and the hash of the annotations it was scored on.

    Raises:
        FileNotFoundError: the annotations are missing.
        ValueError: they are not those that the job was scored on.
        ImportError: Detectron2 is needed for a configuration's set, but not installed.
    """
    images, engine = _same_set(recipe, identity, undone="scored"), identity["engine"]
    return [
        measurement
        for precision, file in files.items()
        for measurement in measure(
            images, _read(file, images), precision=precision, engine=engine
        ).measurements
    ]


def halve_detections(
    recipe: Recipe, file: Path, *, identity: Mapping[str, Any]
) -> tuple[int, dict[str, np.ndarray]]:
    """Return the number of images, and average precision by metric on random halves of them, (halves,).

    Jobs of one test set share the halves.

    Args:
        recipe: the job's recipe.
        file: its detections at one precision.
        identity: its identity, with the hash of the annotations it was scored on.

    Raises:
        FileNotFoundError: the annotations or the detections are missing.
        ValueError: the annotations are not those that the job was scored on.
    """
    images = _same_set(recipe, identity, undone="drawn")
    detections, truth = _read(file, images), images.to_coco()
    halves = draw_halves(len(images))
    found = resample(match(truth, detections), halves)
    if has_masks(truth, detections):
        masks = resample(match(truth, detections, iou_type="segm"), halves)
        found |= {f"{name}{MASK}": values for name, values in masks.items()}
    if images.style == "voc":
        found |= resample_voc(match_voc(images, detections), halves)
    return len(images), found


def _read(file: Path, images: DetectionSet) -> list[dict[str, Any]]:
    """Read boxes and masks; jobs on VOC's sets used to write the images' names for their ids."""
    return [
        {"image_id": images.image_id(d["image_id"])}
        | {key: d[key] for key in ("category_id", "bbox", "score")}
        | ({"segmentation": d["segmentation"]} if d.get("segmentation") else {})
        for d in read_detections(file)
    ]


def _same_set(recipe: Recipe, identity: Mapping[str, Any], *, undone: str) -> DetectionSet:
    """Return the test set; refuse it if its annotations changed since the job."""
    if split_sha256(recipe) != identity["split_sha256"]:
        raise ValueError(
            f"the annotations of {identity['dataset']} are not those that the job was trained and "
            f"scored on; nothing was {undone}. Restore them, or run the job again."
        )
    return scored_set(recipe)
