"""A job's kept detections, scored on other draws of its test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.detection.evaluation.average_precision import match, read_detections
from lowbit.detection.evaluation.bootstrap import DRAWS, draw_images, redraw
from lowbit.detection.recipe import Recipe
from lowbit.detection.stage import split_sha256, tested_set


def redraw_detections(
    recipe: Recipe, file: Path, *, identity: Mapping[str, Any], draws: int = DRAWS
) -> dict[str, np.ndarray]:
    """Return average precision by metric on every draw; jobs of one test set share their draws.

    Args:
        recipe: the job's.
        file: its detections at a precision.
        identity: its facts, with the hash of the annotations it was scored on.
        draws: how many.

    Raises:
        FileNotFoundError: the images' annotations, or the detections, are not there.
        ValueError: the annotations are not those that the job was scored on.
    """
    if split_sha256(recipe) != identity["split_sha256"]:
        raise ValueError(
            f"the annotations of {identity['dataset']} are not those that the job was scored on; "
            "nothing was drawn. Restore them, or run the job again."
        )
    run = match(tested_set(recipe).to_coco(), read_detections(file))
    return redraw(run, draw_images(len(run.params.imgIds), draws))
