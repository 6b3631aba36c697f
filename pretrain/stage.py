"""Run one pretraining job from its recipe to a backbone file."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lowbit.backbones import save_backbone
from lowbit.data import locate, missing_images
from lowbit.data.views.training_views import ViewSource
from lowbit.pretrain.recipe import Recipe
from lowbit.pretrain.running import Run, open_source
from lowbit.pretrain.step import Step
from lowbit.pretrain.trainer import Trainer
from lowbit.training import distributed
from lowbit.training.mixed_precision import SIGNIFICANT_BITS
from lowbit.training.seeding import resolve_device, seeded

_logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"


def run(
    recipe: Recipe, folder: Path, *, watch: Callable[[Step], None] | None = None
) -> dict[str, Any]:
    """Pretrain a backbone and save it; resume from the state in `folder`.

    Writes to `folder`: `checkpoint.pth` (the backbone, full-precision weights), `last.pth` (the state to
    resume from, and older ones), `metrics.jsonl` (a line per epoch) and `tensorboard/`. On a CPU with
    one thread, a run that was stopped or killed and resumed ends in the same weights as one that was
    not, bit for bit. In a process group every process must call this; rank 0 writes. `watch` is called
    each step, see `Trainer`.

    Returns:
        measurements, artifacts, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the image set is missing.
        ValueError: the recipe cannot be trained, or `folder` belongs to another recipe.
        FloatingPointError: the loss or the weights became infinite or NaN.
        Preempted: SIGTERM, SIGINT or SIGUSR1 came; the state was saved after the current step.
    """
    folder = Path(folder)
    device = distributed.local_device(resolve_device(recipe.device))
    source = open_source(recipe, recipe.split, device=device)
    with seeded(recipe.seed, device):
        trainer = Trainer(recipe, source, device=device, watch=watch)
        _announce(recipe, source, trainer)
        last = Run(trainer, folder).train()
    details = {
        "images": len(source),
        "steps": recipe.epochs * trainer.steps,
        "processes": distributed.size(),
        "last": last,
    }
    return {
        "measurements": _measurements(last, source),
        "artifacts": {"checkpoint": CHECKPOINT},
        "checkpoint": {
            "method": recipe.method,
            "architecture": recipe.architecture,
            "sha256": _save_backbone(trainer, recipe, folder),
        },
        "details": details,
    }


def missing_data(recipe: Recipe) -> str | None:
    """Return what is missing and how to get it, or None; an untrained network needs no images."""
    if recipe.epochs:
        return missing_images(recipe.dataset, recipe.split, root=recipe.data_root)
    try:
        locate(recipe.dataset, root=recipe.data_root)  # its identity includes the split
    except FileNotFoundError as error:
        return str(error)
    return None


def _announce(recipe: Recipe, source: ViewSource, trainer: Trainer) -> None:
    if distributed.rank():
        return
    _logger.info(
        "%s: %s on %s %s, %d images, %d epochs of %d steps, %s%s",
        recipe.name,
        recipe.method,
        recipe.architecture,
        recipe.dataset,
        len(source),
        recipe.epochs,
        trainer.steps,
        trainer.device,
        f", {distributed.size()} processes" if distributed.size() > 1 else "",
    )
    if recipe.quant_policy is not None and recipe.amp in SIGNIFICANT_BITS:
        widest = max(*recipe.weight_bits, *recipe.activation_bits)
        if recipe.pairing.startswith("cq"):
            widest = recipe.precision_set[1]
        if widest > SIGNIFICANT_BITS[recipe.amp]:
            _logger.warning(
                "%s has %d significant bits: precisions of up to %d bits are rounded to them.",
                recipe.amp,
                SIGNIFICANT_BITS[recipe.amp],
                widest,
            )


def _save_backbone(trainer: Trainer, recipe: Recipe, folder: Path) -> str:
    """Write the backbone on rank 0; return its SHA-256 everywhere."""
    meta = {
        "method": recipe.method,
        "framework": recipe.framework,
        "pairing": recipe.pairing,
        "data": recipe.dataset,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "config": recipe.results(),
    }
    sha256 = ""
    if distributed.rank() == 0:
        sha256 = save_backbone(folder / CHECKPOINT, trainer.framework.backbone, meta)
    return distributed.gather(sha256)[0]


def _measurements(metrics: dict[str, Any], source: ViewSource) -> list[dict[str, Any]]:
    """Return the last epoch's loss and feature spread; an untrained network has neither."""
    return [
        {
            "metric": name,
            "value": metrics[name],
            "unit": "",
            "n": len(source),
            "precision": "FP",
            "split": source.split,
        }
        for name in ("loss", "feature_std")
        if name in metrics
    ]
