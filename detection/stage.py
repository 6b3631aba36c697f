"""Run one detection job, from its recipe to its measurements."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from lowbit.backbones.costs import backbone_costs
from lowbit.common.file_hash import file_sha256
from lowbit.detection.datasets.catalog import detection_sha256, find_source, load_detection
from lowbit.detection.datasets.check_annotations import check_pair
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.detector_file import save_detector
from lowbit.detection.detector.initial_weights import (
    Start,
    start_from_backbone,
    start_from_detector,
    start_from_random,
)
from lowbit.detection.engine_contract import Engine
from lowbit.detection.engines import get_engine, resolve_engine
from lowbit.detection.evaluation.average_precision import evaluate as overall
from lowbit.detection.evaluation.measurements import keep, measure, scores_on_the_way
from lowbit.detection.ptq import score_ptq
from lowbit.detection.recipe import VERSION, Recipe
from lowbit.detection.scoring.halves_file import write_halves
from lowbit.detection.trained_detector import INPUTS, describe
from lowbit.detection.with_detectron2.install import import_detectron2
from lowbit.detection.yolov4.anchors import describe_anchors
from lowbit.training import distributed
from lowbit.training.job_state import claim
from lowbit.training.metrics_log import read_curve, record_scores
from lowbit.training.seeding import resolve_device

_logger = logging.getLogger(__name__)

_DETECTOR = "detector.pth"


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify a job and determine which results are comparable with it.

    Raises:
        ImportError: the recipe requires Detectron2, which is not installed.
        FileNotFoundError: the annotations are missing.
    """
    if recipe.config is not None:
        return _config_job().identity(recipe)
    policy = recipe.quant_policy
    training = recipe.method if recipe.optimizer is None else f"{recipe.method}, {recipe.optimizer}"
    if recipe.oscillation is not None:
        training += f", {recipe.oscillation.label}"
    return {
        "task": "detection",
        "engine": resolve_engine(recipe.engine),
        "dataset": recipe.dataset,
        "split_sha256": split_sha256(recipe),
        "protocol": recipe.meta_architecture,
        "image_size": _image_size(recipe),
        "method": recipe.method,
        "training": training if recipe.scope == "backbone" else f"{training}, {recipe.scope}",
        "policy": policy.name if policy else "-",
        "policy_fingerprint": policy.fingerprint if policy else "-",
        "policy_on_board": False,  # because a detector is trained with its policy
    }


def split_sha256(recipe: Recipe) -> str:
    """Hash the training and test annotations.

    Raises:
        FileNotFoundError: they are missing.
    """
    if recipe.config is not None:
        return _config_job().split_sha256(recipe)
    return detection_sha256(
        recipe.dataset,
        train=recipe.train_images,
        test=recipe.test_images,
        test_split=recipe.test_split,
        layout=recipe.layout,
        seed=recipe.scene_seed,
        root=recipe.data_root,
        voc_base=recipe.voc_base,
    )


def missing_data(recipe: Recipe) -> str | None:
    """Return what is missing and how to get it; None if the annotations exist.

    A damaged set is not missing: the job that reads it fails with an error.
    """
    if recipe.config is not None:
        if importlib.util.find_spec("detectron2") is None:
            return None  # the job's identity raises this error
        return _config_job().missing_data(recipe)
    try:
        find_source(recipe.dataset, root=recipe.data_root)
    except FileNotFoundError as error:
        return str(error)
    except ValueError:  # damaged
        pass
    return None


def scored_set(recipe: Recipe) -> DetectionSet:
    """Return a job's test set."""
    if recipe.config is not None:
        return _config_job().scored_set(recipe)
    return load_images(recipe, recipe.test_split)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train and score a detector by its recipe, resuming from the state in `folder`, if any.

    Returns:
        Measurements, costs, artifacts, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the backbone or detector file, or an image set, is missing.
        ValueError: an input is missing or does not fit, the annotations have errors, or `folder` belongs
            to another job.
        ImportError: the recipe requires Detectron2, which is not installed.
        FloatingPointError: the training diverged.
        Preempted: SIGTERM, SIGINT or SIGUSR1 arrived during training; the state was saved.
    """
    folder = Path(folder)
    if recipe.config is not None:
        return _config_job().run(recipe, folder)
    engine = get_engine(recipe.engine)
    recipe = recipe.model_copy(
        update={"engine": engine.name, "device": str(resolve_device(recipe.device))}
    )
    start = load_start(recipe)
    train, test = load_images(recipe, "train"), scored_set(recipe)
    check_pair(train, test)
    claim(folder, _job_key(recipe, start))
    job = score_ptq if recipe.method == "ptq" else _train_and_score
    costs = _costs(recipe, start.architecture)
    result = job(engine, recipe, start, train, test, folder)
    facts = {
        "start": start.report,
        "normalization": [list(values) for values in start.normalization],
        "calibration_images": recipe.calibration_images if recipe.method != "fp" else 0,
        "images": {"train": len(train), "test": len(test)},
    }
    return {
        **result,
        "costs": costs,
        "checkpoint": start.backbone,
        "details": facts | result["details"],
    }


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that train one detector by a configuration."""
    import_detectron2()
    from detectron2.utils import comm

    with distributed.process_group():
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        yield


def _costs(recipe: Recipe, architecture: str) -> dict[str, dict[str, int]]:
    """Count the backbone's cost on a square of the test images' shorter side; none if it varies."""
    side = _image_size(recipe)
    precisions = recipe.precisions if recipe.method == "ptq" else [recipe.precision]
    if side is None:
        return {}
    return backbone_costs(architecture, recipe.quant_policy, precisions, image_size=side)


def _image_size(recipe: Recipe) -> int | None:
    scenes = recipe.dataset == "digit-scenes"
    return recipe.test_size or (recipe.image_size if scenes else None)


def _train_and_score(
    engine: Engine,
    recipe: Recipe,
    start: Start,
    train: DetectionSet,
    test: DetectionSet,
    folder: Path,
) -> dict[str, Any]:
    def evaluate(detector: nn.Module) -> dict[str, float]:
        return overall(test.to_coco(), engine.predict(detector, test, recipe))

    detector, details = engine.train(recipe, start, train, folder, evaluate=evaluate)
    file_sha256 = save_detector(
        folder / _DETECTOR, detector, describe(recipe, start, train.classes)
    )
    detections = engine.predict(detector, test, recipe)
    found = measure(test, detections, precision=str(recipe.precision), engine=engine.name)
    values = {m["metric"]: m["value"] for m in found.measurements}
    record_scores(folder, recipe.iterations, values)
    details |= {"detector_sha256": file_sha256, "classes": found.classes}
    details |= describe_anchors(detector)
    measurements = found.measurements
    if recipe.evaluate_at:
        details["curve"] = read_curve(folder)
        common = {name: measurements[0][name] for name in ("unit", "n", "precision", "split")}
        measurements = measurements + scores_on_the_way(
            details["curve"], recipe.evaluate_at, last=recipe.iterations, **common
        )
    halves = {str(recipe.precision): found.halves}
    artifacts = {
        "checkpoint": _DETECTOR,
        **keep(folder, test, detections),
        **write_halves(folder, test.to_coco(), found.measurements, halves),
    }
    return {"measurements": measurements, "artifacts": artifacts, "details": details}


def _config_job():
    """Import the module for jobs of Detectron2 configurations, which needs Detectron2."""
    import_detectron2()
    from lowbit.detection.with_detectron2 import config_job

    return config_job


def load_start(recipe: Recipe) -> Start:
    """Load the recipe's initial weights.

    Raises:
        ValueError: the recipe names none.
    """
    if recipe.random_backbone:
        return start_from_random(recipe.architecture)
    if recipe.method == "fp":
        if recipe.checkpoint is None:
            raise ValueError(
                "the recipe names no backbone; nothing was trained. Give its file: checkpoint PATH; or, "
                "for random weights, random_backbone true and architecture NAME."
            )
        return start_from_backbone(recipe.checkpoint, recipe.architecture)
    if recipe.detector is None:
        raise ValueError(
            f"method {recipe.method} starts from a trained detector, but the recipe names none; "
            "nothing was trained. Run the same recipe with method fp first, then give its "
            "detector.pth: detector PATH."
        )
    backbone = _file_sha256(recipe.checkpoint) if recipe.checkpoint else None
    return start_from_detector(
        recipe.detector,
        engine=recipe.engine,
        fpn_relu=recipe.fpn_relu,
        backbone_sha256=backbone,
    )


def load_images(recipe: Recipe, split: str) -> DetectionSet:
    """Load the recipe's images of a split."""
    count = recipe.train_images if split == "train" else recipe.test_images
    return load_detection(
        recipe.dataset,
        split,
        count,
        layout=recipe.layout,
        seed=recipe.scene_seed,
        root=recipe.data_root,
        voc_base=recipe.voc_base,
    )


def _job_key(recipe: Recipe, start: Start) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json", exclude=set(recipe.cosmetic | INPUTS))
    return {"version": VERSION, "recipe": fields, "start": start.report["sha256"]}


def _file_sha256(path: str | Path) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no backbone file {path}; nothing was trained. Check `checkpoint`, or "
            "omit it: the detector file names its backbone."
        )
    return file_sha256(path)
