"""One detection job from its recipe to its measurements."""

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn

from lowbit.backbones import create_backbone
from lowbit.backbones.costs import backbone_costs
from lowbit.backbones.runtime import resolve_device
from lowbit.common.atomic_file import atomic
from lowbit.common.file_hash import file_sha256
from lowbit.detection.datasets.catalog import detection_sha256, load_detection
from lowbit.detection.datasets.check_annotations import check_pair
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.detector_file import read_detector, restore_detector, save_detector
from lowbit.detection.detector.initial_weights import (
    Start,
    start_from_backbone,
    start_from_detector,
    start_from_random,
)
from lowbit.detection.detector.quantize import quantize_layers
from lowbit.detection.engines import Engine, get_engine, import_detectron2, resolve_engine
from lowbit.detection.evaluation.average_precision import evaluate as overall
from lowbit.detection.evaluation.measurements import keep, measure
from lowbit.detection.ptq import score_ptq
from lowbit.detection.recipe import Recipe
from lowbit.detection.recorder import read_curve, record_scores

VERSION = 1  # of the protocol; raised when the same recipe comes to mean other numbers

_logger = logging.getLogger(__name__)

_DETECTOR = "detector.pth"
_JOB = "job.json"
_INPUTS = frozenset({"checkpoint", "detector"})


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that name a job and say which rows may be compared with it.

    Raises:
        ImportError: the recipe insists on Detectron2, which is not installed.
        FileNotFoundError: the images' annotations are not there.
    """
    if recipe.config is not None:
        return _config_job().identity(recipe)
    policy = recipe.quant_policy
    training = recipe.method if recipe.optimizer is None else f"{recipe.method}, {recipe.optimizer}"
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
    }


def split_sha256(recipe: Recipe) -> str:
    """Hash the annotations that are trained and tested on.

    Raises:
        FileNotFoundError: they are not there.
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
    )


def tested_set(recipe: Recipe) -> DetectionSet:
    """Return the set that a job is tested on."""
    if recipe.config is not None:
        return _config_job().tested_set(recipe)
    return load_images(recipe, recipe.test_split)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train and score a detector by its recipe; go on from what a killed run left in `folder`.

    Returns:
        measurements, costs, artifacts, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the backbone or detector file, or an image set, is not there.
        ValueError: an input is missing or does not fit, the annotations have errors, or `folder` is
            another job's.
        ImportError: the recipe insists on Detectron2, which is not installed.
        FloatingPointError: the training diverged.
    """
    folder = Path(folder)
    if recipe.config is not None:
        return _config_job().run(recipe, folder)
    engine = get_engine(recipe.engine)
    recipe = recipe.model_copy(
        update={"engine": engine.name, "device": str(resolve_device(recipe.device))}
    )
    start = load_start(recipe)
    claim(folder, _job_key(recipe, start))
    train, test = load_images(recipe, "train"), tested_set(recipe)
    check_pair(train, test)
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


def _costs(recipe: Recipe, architecture: str) -> dict[str, dict[str, int]]:
    """Count the backbone on a square of the test images' shorter side; nothing where that varies."""
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
    found = measure(test, detections, precision=recipe.precision, engine=engine.name)
    values = {m["metric"]: m["value"] for m in found.measurements}
    record_scores(folder, recipe.iterations, values)
    details |= {"detector_sha256": file_sha256, "classes": found.classes}
    if recipe.evaluate_at:
        details["curve"] = read_curve(folder)
    artifacts = {"checkpoint": _DETECTOR, **keep(folder, test, detections)}
    return {"measurements": found.measurements, "artifacts": artifacts, "details": details}


def _config_job():
    """The jobs of Detectron2 configurations, which only they need Detectron2 for."""
    import_detectron2()
    from lowbit.detection.with_detectron2 import config_job

    return config_job


def load_start(recipe: Recipe) -> Start:
    """Load what the recipe's training starts from.

    Raises:
        ValueError: the recipe does not name it.
    """
    if recipe.random_backbone:
        return start_from_random(recipe.architecture)
    if recipe.method == "fp":
        if recipe.checkpoint is None:
            raise ValueError(
                "the recipe names no backbone; nothing was trained. Give its file: checkpoint PATH; or, "
                "for random weights on purpose, random_backbone true and architecture NAME."
            )
        return start_from_backbone(recipe.checkpoint, recipe.architecture)
    if recipe.detector is None:
        raise ValueError(
            f"method {recipe.method} starts from a trained detector, and the recipe names none; "
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
    )


def describe(recipe: Recipe, start: Start, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the meta of a detector file: enough to build the detector again, and no path."""
    policy = recipe.quant_policy
    local = recipe.cosmetic | _INPUTS
    return {
        "engine": recipe.engine,
        "architecture": start.architecture,
        "method": recipe.method,
        "precision": recipe.precision,
        "policy": policy.to_dict() if policy else None,
        "policy_fingerprint": policy.fingerprint if policy else None,
        "backbone": start.backbone,
        "normalization": [list(values) for values in start.normalization],
        "classes": list(classes),
        "version": VERSION,
        "recipe": recipe.model_dump(mode="json", exclude=set(local)),
    }


def load_trained(path: str | Path, *, engine: Engine, device: str) -> tuple[nn.Module, Recipe]:
    """Build the detector that a finished job wrote, quantized as it was; return its recipe too."""
    state, meta = read_detector(path, engine=engine.name)
    if "recipe" not in meta:
        raise ValueError(
            f"{path} was trained by a Detectron2 configuration, not by a recipe; nothing was "
            "evaluated. Evaluate it with that configuration: --eval-only MODEL.LOWBIT.DETECTOR FILE."
        )
    recipe = Recipe(**meta["recipe"], device=device)
    start = Start(
        network=create_backbone(meta["architecture"]),
        state=state,
        normalization=tuple(tuple(values) for values in meta["normalization"]),
        backbone=meta["backbone"],
        report={},
    )
    detector = engine.build(recipe, start, classes=len(meta["classes"]))
    if recipe.quant_policy is not None:
        quantize_layers(detector, recipe.quant_policy, recipe.precision, scope=recipe.scope)
    restore_detector(detector, state, source=str(path))
    return detector, recipe


def _job_key(recipe: Recipe, start: Start) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json", exclude=set(recipe.cosmetic | _INPUTS))
    return {"version": VERSION, "recipe": fields, "start": start.report["sha256"]}


def claim(folder: Path, key: dict[str, Any]) -> None:
    """Mark a folder as a job's, so that no other job goes on from its training state."""
    path = folder / _JOB
    if path.exists():
        found = json.loads(path.read_text())
        if found != key:
            changed = sorted(
                name
                for name in found["recipe"].keys() | key["recipe"].keys()
                if found["recipe"].get(name) != key["recipe"].get(name)
            )
            what = f"differs in {', '.join(changed)}" if changed else "starts from another file"
            raise ValueError(
                f"{folder} holds a training that {what}; nothing was trained. Use another folder, "
                "or delete this one to begin anew."
            )
        return
    with atomic(path) as file:
        file.write(json.dumps(key, indent=1, sort_keys=True).encode())


def _file_sha256(path: str | Path) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no backbone file {path}; nothing was trained. Check `checkpoint`, or leave "
            "it out: the detector file names its backbone."
        )
    return file_sha256(path)
