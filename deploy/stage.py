"""Run one deploy job: export the networks that a job left, run them here, and measure what they cost."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowbit.deploy.classifier import run_classifiers
from lowbit.deploy.detector import run_detector
from lowbit.deploy.processor import this_processor
from lowbit.deploy.recipe import Recipe
from lowbit.deploy.saturation import SATURATE, products
from lowbit.export.runtime import get_runtime

_logger = logging.getLogger(__name__)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Export and run the networks of a transfer job or the detector of a detection job.

    Returns:
        measurements, costs, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the checkpoint, the networks, the detector or the images are missing.
        ValueError: the networks are not those that the recipe describes, or a layer has no integer form.
        ImportError: the runtime is not installed, or the detector is Detectron2's, which is not.
    """
    runtime = get_runtime(recipe.runtime)
    found = (run_detector if recipe.detector is not None else run_classifiers)(recipe, runtime)
    if products(recipe.runtime) == SATURATE:
        _logger.warning(
            "Sums of 8-bit products saturate in %s on this processor: its int8 results may be wrong.",
            recipe.runtime,
        )
    machine = {
        "processor": asdict(this_processor()),
        "products": products(recipe.runtime),
    }
    return {**found, "details": machine | found["details"]}


def process_group() -> AbstractContextManager[None]:
    """Do nothing: a deploy job has one process."""
    return nullcontext()
