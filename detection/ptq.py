"""Post-training quantization of a detector: calibrated on training images, scored at several bit-widths."""

from pathlib import Path
from typing import Any

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.detector_file import save_detector
from lowbit.detection.detector.initial_weights import Start, initialize
from lowbit.detection.detector.quantization_report import describe_quantization
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.engine_contract import Engine, calibration_batches
from lowbit.detection.evaluation.measurements import keep, measure
from lowbit.detection.recipe import Recipe
from lowbit.detection.scoring.halves_file import write_halves
from lowbit.detection.trained_detector import CALIBRATED, describe
from lowbit.quant import FP, set_precision

_FILE = "calibrated.pth"


def score_ptq(
    engine: Engine,
    recipe: Recipe,
    start: Start,
    train: DetectionSet,
    test: DetectionSet,
    folder: Path,
) -> dict[str, Any]:
    """Score a trained detector at each of the recipe's precisions, without training.

    One calibration in full precision is used for every bit-width.

    Returns:
        Measurements, artifacts (the calibrated detector; detections and pictures of each precision) and
        details.
    """
    detector = engine.build(recipe, start, classes=len(train.classes))
    initialize(detector, start)
    quantize_detector(
        detector,
        recipe.quant_policy,
        FP,
        batches=calibration_batches(engine, train, recipe),
        scope=recipe.scope,
        trained=False,
    )
    measurements: list[dict[str, Any]] = []
    file_sha256 = save_detector(folder / _FILE, detector, describe(recipe, start, train.classes))
    artifacts = {CALIBRATED: _FILE}
    classes: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    halves = {}
    for precision in recipe.precisions:
        set_precision(detector, precision)
        detections = engine.predict(detector, test, recipe)
        found = measure(test, detections, precision=str(precision), engine=engine.name)
        measurements += found.measurements
        classes[str(precision)] = found.classes
        halves[str(precision)] = found.halves
        artifacts |= keep(folder, test, detections, suffix=f"_{precision}")
        layers[str(precision)] = describe_quantization(detector)["layers"]
    artifacts |= write_halves(folder, test.to_coco(), measurements, halves)
    details = describe_quantization(detector) | {
        "classes": classes,
        "layers": layers,
        "detector_sha256": file_sha256,
    }
    return {"measurements": measurements, "artifacts": artifacts, "details": details}
