"""Run the networks of a transfer job as integer graphs, and measure what they cost and predict."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lowbit.backbones.costs import backbone_costs
from lowbit.data import Images, image_set, open_images
from lowbit.deploy.agreement import Agreement, batches, compare, predicted, some_images
from lowbit.deploy.export_model import to_graph
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
from lowbit.deploy.recipe import Recipe
from lowbit.deploy.subject import Subject, of_job
from lowbit.export.onnx_export import Exported
from lowbit.export.runtime import Runtime
from lowbit.quant import FP, get_policy, set_precision
from lowbit.transfer.scoring.accuracy import INTERVAL, Accuracy, accuracy
from lowbit.transfer.scoring.scored_network import ScoredNetworks

_SPLIT = "test"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Measured:
    """What was measured at one precision: accuracy is of the graph's predictions on all test images."""

    costs: GraphCosts
    agreement: Agreement
    accuracy: Accuracy


def run_classifiers(recipe: Recipe, runtime: Runtime) -> dict[str, Any]:
    """Export and run the networks of a transfer job, precision by precision.

    Returns:
        measurements, costs, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the checkpoint, the networks or the images are missing.
        ValueError: the networks are not those that the recipe describes, or a layer has no integer form.
    """
    networks = ScoredNetworks(recipe.networks)
    _require_described(recipe, networks)
    images = open_images(recipe.dataset, _SPLIT, root=recipe.data_root)
    full = FullPrecision.load(_in_full_precision(networks, recipe), runtime)
    found = {
        str(precision): _measure(
            of_job(networks, precision, recipe.checkpoint), full, images, runtime, recipe
        )
        for precision in recipe.precisions
    }
    facts = networks.facts
    return {
        "measurements": [
            row
            for precision, each in found.items()
            for row in _rows(each, precision, len(images), recipe)
        ],
        "costs": backbone_costs(
            facts.architecture, facts.policy, recipe.precisions, image_size=facts.image_size
        ),
        "checkpoint": {"architecture": facts.architecture, "sha256": facts.checkpoint_sha256},
        "details": {
            **cost_details({precision: each.costs for precision, each in found.items()}),
            "compared_images": next(iter(found.values())).agreement.images,
        },
    }


def _require_described(recipe: Recipe, networks: ScoredNetworks) -> None:
    facts = networks.facts
    same = {
        "dataset": recipe.dataset == facts.dataset,
        "image_size": recipe.image_size == facts.image_size,
        "policy": get_policy(recipe.policy).fingerprint == get_policy(facts.policy).fingerprint,
    }
    other = [name for name, equal in same.items() if not equal]
    if other:
        raise ValueError(
            f"{networks.path} holds networks of another {' and '.join(other)} than the recipe; nothing was "
            "measured. Correct the recipe, or name the networks that it describes."
        )


def _in_full_precision(networks: ScoredNetworks, recipe: Recipe) -> Exported:
    """Export the network of full precision, or another in full precision where it is not asked for."""
    taken = FP if FP in recipe.precisions else recipe.precisions[0]
    subject = of_job(networks, taken, recipe.checkpoint)
    set_precision(subject.network, FP)
    return to_graph(replace(subject, precision=FP))


def _measure(
    subject: Subject, full: FullPrecision, images: Images, runtime: Runtime, recipe: Recipe
) -> _Measured:
    exported = full.exported if subject.precision == FP else to_graph(subject)
    session = runtime.load(exported.model, threads=0)
    agreement = compare(
        subject.network,
        {runtime.NAME: session},
        batches(images, subject.view, some_images(images, recipe.agreement_images)),
        classes=True,
    )
    classes = predicted(session, batches(images, subject.view))
    side = subject.view.size
    drawn = np.random.default_rng(0).standard_normal((max(BATCHES), 3, side, side), np.float32)
    costs = measure_costs(
        exported,
        session,
        full,
        runtime,
        layers=product_layers(subject.network),
        images=drawn,
        rounds=recipe.rounds,
    )
    measured = _Measured(costs, agreement, accuracy(classes, images.labels, len(images.classes)))
    _logger.info(
        "%s: %.1f kB, %d of %d layers on integers, top-1 %.2f %%, agreement %.4f (noise floor %.4f)",
        subject.precision,
        costs.file_bytes / 1e3,
        len(costs.integers),
        len(costs.integers) + len(costs.floats),
        measured.accuracy.top1,
        agreement.graphs[runtime.NAME],
        agreement.floor,
    )
    return measured


def _rows(
    found: _Measured, precision: str, images: int, recipe: Recipe
) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a precision."""
    row = Rows(precision, _SPLIT).row
    score, agreement = found.accuracy, found.agreement
    for metric in image_set(recipe.dataset).metrics:
        low, high = score.interval(metric)
        ends = {"low": low, "high": high, "interval": INTERVAL}
        yield row(metric, getattr(score, metric), "%", images, stderr=score.stderr(metric), **ends)
    yield row("agreement", 100 * agreement.graphs[recipe.runtime], "%", agreement.images)
    yield row("noise_floor", 100 * agreement.floor, "%", agreement.images)
    yield from cost_rows(found.costs, precision, split=_SPLIT, rounds=recipe.rounds)
