"""What a detection engine does, and the calibration batches that any of them can make."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.initial_weights import CALIBRATION_BATCH, Start, chunks
from lowbit.detection.recipe import Recipe


class Engine(Protocol):
    """A detector framework. Rows of different engines never share a ranking."""

    name: str

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a fresh network of `start.architecture`."""

    def train(
        self,
        recipe: Recipe,
        start: Start,
        images: DetectionSet,
        folder: Path,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, going on from what a killed run left in `folder`; return detector and details.

        After the iterations of `evaluate_at`, but the last, `evaluate` scores the detector.
        """

    def inputs(self, images: DetectionSet, places: Iterable[int], recipe: Recipe) -> list:
        """Return the images at `places` as the engine's detectors take them in inference."""

    def predict(
        self, detector: nn.Module, images: DetectionSet, recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Detect in all images of a set; return COCO's result format, with the set's own ids."""


def calibration_batches(engine: Engine, images: DetectionSet, recipe: Recipe) -> Iterator[list]:
    """Yield batches of the first annotated training images, at test-time size."""
    chosen = images.annotated[: recipe.calibration_images]
    for places in chunks(len(chosen), CALIBRATION_BATCH):
        yield engine.inputs(images, chosen[places.start : places.stop], recipe)
