"""A job's kept detections, scored again against the set that they were made on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowbit.detection.engines import import_detectron2
from lowbit.detection.evaluation.average_precision import read_detections
from lowbit.detection.evaluation.measurements import measure
from lowbit.detection.recipe import Recipe
from lowbit.detection.stage import split_sha256, tested_set


def rescore(
    recipe: Recipe, files: Mapping[str, Path], *, identity: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Measure detections again, without the detector.

    Args:
        recipe: the job's.
        files: its detections, by precision.
        identity: its facts: the engine, and the hash of the annotations it was scored on.

    Raises:
        FileNotFoundError: the images' annotations are not there.
        ValueError: they are not those that the job was scored on.
        ImportError: that takes Detectron2 (a configuration's set, or VOC's metrics), which is not
            installed.
    """
    if split_sha256(recipe) != identity["split_sha256"]:
        raise ValueError(
            f"the annotations of {identity['dataset']} are not those that the job was trained and "
            "scored on; nothing was scored. Restore them, or run the job again."
        )
    images, engine = tested_set(recipe), identity["engine"]
    if images.style == "voc" and engine == "detectron2":
        import_detectron2()  # whose functions score VOC's sets
    return [
        measurement
        for precision, file in files.items()
        for measurement in measure(
            images, read_detections(file), precision=precision, engine=engine
        ).measurements
    ]
