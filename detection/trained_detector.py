"""The detector file of a recipe's job: its metadata, and rebuilding the detector."""

from pathlib import Path
from typing import Any

from torch import nn

from lowbit.backbones import create_backbone
from lowbit.detection.detector.detector_file import read_detector, restore_detector
from lowbit.detection.detector.initial_weights import Start
from lowbit.detection.detector.quantize import quantize_layers
from lowbit.detection.engine_contract import Engine
from lowbit.detection.recipe import VERSION, Recipe

CALIBRATED = "calibrated detector"  # the artifact that post-training quantization leaves
INPUTS = frozenset({"checkpoint", "detector"})  # input files, identified by content and not by path


def describe(recipe: Recipe, start: Start, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata of a detector file: enough to rebuild the detector, without paths."""
    policy = recipe.quant_policy
    local = recipe.cosmetic | INPUTS
    return {
        "engine": recipe.engine,
        "architecture": start.architecture,
        "method": recipe.method,
        "precision": str(recipe.precision),
        "policy": policy.to_dict() if policy else None,
        "policy_fingerprint": policy.fingerprint if policy else None,
        "backbone": start.backbone,
        "normalization": [list(values) for values in start.normalization],
        "classes": list(classes),
        "version": VERSION,
        "recipe": recipe.model_dump(mode="json", exclude=set(local)),
    }


def load_trained(path: str | Path, *, engine: Engine, device: str) -> tuple[nn.Module, Recipe]:
    """Rebuild the detector of a finished job, quantized as it was; also return its recipe."""
    state, meta = read_detector(path, engine=engine.name)
    if "recipe" not in meta:
        raise ValueError(
            f"{path} was trained by a Detectron2 configuration, not by a recipe; nothing was "
            "evaluated. Use that configuration: --eval-only MODEL.LOWBIT.DETECTOR FILE."
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
