"""Run the detector of a detection job with its backbone and pyramid as an integer graph, and measure both.

The graph has the backbone and the pyramid; the heads stay in torch, as they were scored. So average
precision and agreement are of the whole detector, bytes, time and layers of the graph.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from lowbit.backbones.costs import backbone_costs
from lowbit.deploy.graph_costs import (
    BATCHES,
    FullPrecision,
    GraphCosts,
    Rows,
    cost_details,
    cost_rows,
    measure_costs,
    product_layers,
)
from lowbit.deploy.recipe import Recipe, identity
from lowbit.detection.datasets.check_annotations import check
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.detector_file import read_detector
from lowbit.detection.detector.quantize import normalized
from lowbit.detection.engine_contract import Engine
from lowbit.detection.engines import get_engine
from lowbit.detection.exported_detector import ExportedScore, PyramidExporter, score_exported
from lowbit.detection.recipe import Recipe as DetectionRecipe
from lowbit.detection.stage import scored_set
from lowbit.detection.trained_detector import INPUTS, load_trained
from lowbit.export.runtime import Runtime
from lowbit.quant import FP, Precision, set_precision

METRICS = ("AP", "AP50", "AP75")
"""What rows have of COCO's metrics."""

_BACKBONE = "backbone."  # of the detector's names, the part that is the graph

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Measured:
    """What was measured at one precision."""

    costs: GraphCosts
    score: ExportedScore


def run_detector(recipe: Recipe, runtime: Runtime) -> dict[str, Any]:
    """Export and run the detector of a detection job, precision by precision.

    Returns:
        measurements, costs, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the detector or the annotations are missing.
        ValueError: the detector is not the one that the recipe describes, or a layer has no integer form.
        ImportError: the detector is Detectron2's, which is not installed.
    """
    described = recipe.detection_recipe
    engine = get_engine(described.engine)
    detector, made = load_trained(recipe.detector, engine=engine, device="cpu")
    backbone = read_detector(recipe.detector, engine=engine.name)[1]["backbone"]
    _require_described(recipe, made, described)
    images = scored_set(described)
    check(images, undone="measured")
    detector.eval().requires_grad_(False)
    set_precision(detector, FP)
    exporter = PyramidExporter(detector)
    full = FullPrecision.load(exporter.export(), runtime)
    found = {
        str(precision): _measure(
            engine, detector, exporter, full, described, images, runtime, recipe, precision
        )
        for precision in recipe.precisions
    }
    side = identity(recipe)["image_size"]
    return {
        "measurements": [
            row
            for precision, each in found.items()
            for row in _rows(each, precision, images, recipe.rounds)
        ],
        "costs": {}
        if side is None
        else backbone_costs(
            backbone["architecture"], described.quant_policy, recipe.precisions, image_size=side
        ),
        "checkpoint": backbone,
        "details": {
            **cost_details({precision: each.costs for precision, each in found.items()}),
            "beside_the_graph": _heads(detector),
            "detections": {p: _compared(each.score) for p, each in found.items()},
            "compared_images": len(images),
        },
    }


def _require_described(recipe: Recipe, made: DetectionRecipe, described: DetectionRecipe) -> None:
    local = set(DetectionRecipe.cosmetic | INPUTS)
    found, wanted = (one.model_dump(mode="json", exclude=local) for one in (made, described))
    other = [name for name in wanted if found[name] != wanted[name]]
    if other:
        raise ValueError(
            f"{recipe.detector} holds a detector of another {' and '.join(other)} than the recipe; nothing "
            "was measured. Correct the recipe, or name the detector that it describes."
        )


def _measure(
    engine: Engine,
    detector: nn.Module,
    exporter: PyramidExporter,
    full: FullPrecision,
    described: DetectionRecipe,
    images: DetectionSet,
    runtime: Runtime,
    recipe: Recipe,
    precision: Precision,
) -> _Measured:
    set_precision(detector, precision)
    exported = full.exported if precision == FP else exporter.export()
    session = runtime.load(exported.model, threads=0)
    score = score_exported(engine, detector, described, images, session, precision=precision)
    places = [place % len(images) for place in range(max(BATCHES))]
    timed = normalized(detector, engine.inputs(images, places, described)).numpy()
    costs = measure_costs(
        exported,
        session,
        full,
        runtime,
        layers=[f"{_BACKBONE}{name}" for name in product_layers(detector.backbone)],
        images=np.ascontiguousarray(timed),
        rounds=recipe.rounds,
    )
    _logger.info(
        "%s: %.1f kB, %d of %d layers on integers, AP %.2f (simulation %.2f), agreement %s (noise floor %s)",
        precision,
        costs.file_bytes / 1e3,
        len(costs.integers),
        len(costs.integers) + len(costs.floats),
        score.exported["AP"]["value"],
        score.simulated["AP"]["value"],
        score.agreement.share,
        score.noise_floor.share,
    )
    return _Measured(costs, score)


def _heads(detector: nn.Module) -> list[str]:
    return [name for name in product_layers(detector) if not name.startswith(_BACKBONE)]


def _compared(score: ExportedScore) -> dict[str, Any]:
    """Return how many detections were compared, and what else is known of them."""
    return {
        "simulated": score.agreement.first,
        "exported": score.agreement.second,
        "shared": score.agreement.pairs,
        "floor": {"float64": score.noise_floor.second, "shared": score.noise_floor.pairs},
        **{
            f"{name}_of_the_{whose}": rows[name]["value"]
            for whose, rows in (("simulation", score.simulated), ("floor", score.floor))
            for name in METRICS
            if name in rows
        },
    }


def _rows(
    found: _Measured, precision: str, images: DetectionSet, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a precision; no agreement where no run has a detection to compare."""
    yield from (found.score.exported[name] for name in METRICS if name in found.score.exported)
    row = Rows(precision, images.split).row
    shares = {
        "agreement": found.score.agreement.share,
        "noise_floor": found.score.noise_floor.share,
    }
    if None not in shares.values():
        for metric, share in shares.items():
            yield row(metric, 100 * share, "%", len(images))
    yield from cost_rows(found.costs, precision, split=images.split, rounds=rounds)
