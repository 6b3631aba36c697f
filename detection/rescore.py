"""Score a job's saved detections again, on its test images or on bootstrap draws of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.bootstrap import DRAWS, draw_images, redraw
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.detection.evaluation.matching import match
from lowbit.detection.evaluation.measurements import measure
from lowbit.detection.recipe import Recipe
from lowbit.detection.stage import split_sha256, tested_set
from lowbit.detection.with_detectron2.install import import_detectron2


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
        ImportError: Detectron2 is needed (for a configuration's set, or VOC's metrics), but not
            installed.
    """
    images, engine = _same_set(recipe, identity, undone="scored"), identity["engine"]
    if images.style == "voc" and engine == "detectron2":
        import_detectron2()  # its functions score VOC's sets
    return [
        measurement
        for precision, file in files.items()
        for measurement in measure(
            images, _read(file, images), precision=precision, engine=engine
        ).measurements
    ]


def redraw_detections(
    recipe: Recipe, file: Path, *, identity: Mapping[str, Any], draws: int = DRAWS
) -> dict[str, np.ndarray]:
    """Return average precision by metric on every draw; jobs of one test set share their draws.

    Args:
        recipe: the job's recipe.
        file: its detections at one precision.
        identity: its identity, with the hash of the annotations it was scored on.
        draws: number of draws.

    Raises:
        FileNotFoundError: the annotations or the detections are missing.
        ValueError: the annotations are not those that the job was scored on.
    """
    images = _same_set(recipe, identity, undone="drawn")
    matches = match(images.to_coco(), _read(file, images))
    return redraw(matches, draw_images(matches.images, draws))


def _read(file: Path, images: DetectionSet) -> list[dict[str, Any]]:
    """Read detections; jobs on VOC's sets used to write the images' names for their ids."""
    return [{**d, "image_id": images.image_id(d["image_id"])} for d in read_detections(file)]


def _same_set(recipe: Recipe, identity: Mapping[str, Any], *, undone: str) -> DetectionSet:
    """Return the test set; refuse it if its annotations changed since the job."""
    if split_sha256(recipe) != identity["split_sha256"]:
        raise ValueError(
            f"the annotations of {identity['dataset']} are not those that the job was trained and "
            f"scored on; nothing was {undone}. Restore them, or run the job again."
        )
    return tested_set(recipe)
