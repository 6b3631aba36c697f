"""The interface of a detection engine, and calibration batches for any of them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.initial_weights import CALIBRATION_BATCH, Start, chunks
from lowbit.detection.recipe import Recipe


class Engine(Protocol):
    """A detector framework. Results of different engines are never ranked together."""

    name: str

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a new network of `start.architecture`."""

    def train(
        self,
        recipe: Recipe,
        start: Start,
        images: DetectionSet,
        folder: Path,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, resuming from the state in `folder`, if any; return detector and details.

        After the iterations in `evaluate_at`, except the last, `evaluate` scores the detector.
        """

    def inputs(self, images: DetectionSet, places: Iterable[int], recipe: Recipe) -> list:
        """Return the images at `places` as inference inputs of the engine's detectors."""

    def predict(
        self, detector: nn.Module, images: DetectionSet, recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Run the detector on all images of a set; return COCO's result format with the set's ids.

        Raises:
            ValueError: a quantizer that is on was never asked (`lowbit.quant.require_asked`).
        """


def calibration_batches(engine: Engine, images: DetectionSet, recipe: Recipe) -> Iterator[list]:
    """Yield batches of the first annotated training images, at test-time size."""
    chosen = images.annotated[: recipe.calibration_images]
    for places in chunks(len(chosen), CALIBRATION_BATCH):
        yield engine.inputs(images, chosen[places.start : places.stop], recipe)
