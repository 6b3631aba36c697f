"""The torchvision engine: RetinaNet trained in a plain loop that a killed run can go on with."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import create_backbone
from detection.datasets import DetectionSet
from detection.evaluation import to_detections
from detection.files import write_atomically
from detection.preparation import (
    CALIBRATION_BATCH,
    Start,
    count_quantized,
    initialize,
    normalize_images,
    quantize_detector,
)
from detection.recipe import Recipe
from detection.recorder import Recorder, check_finite, diverged
from detection.retinanet import build_retinanet
from detection.sampler import IndexStream, seed_everything, seed_of
from detection.solver import build_optimizer, build_scheduler
from quant import Precision

_logger = logging.getLogger(__name__)

_STATE = "training.pth"
_LOSSES = {"classification": "loss_cls", "bbox_regression": "loss_box_reg"}  # Detectron2's names
_PREDICTION_BATCH = 32  # images in one forward pass


class TorchvisionEngine:
    """RetinaNet of torchvision.models.detection; the contract is `detection.engines.Engine`."""

    name = "torchvision"

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a fresh network of `start.architecture`."""
        with torch.random.fork_rng(devices=[]):  # built on the CPU, then moved
            torch.manual_seed(seed_of(recipe.seed, 0))
            network = create_backbone(start.architecture)
            detector = build_retinanet(
                recipe, network, classes=classes, normalization=start.normalization
            )
        return detector.to(recipe.device)

    def train(
        self, recipe: Recipe, start: Start, images: DetectionSet, folder: Path
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, going on from what a killed run left in `folder`; return detector and details."""
        detector = self.build(recipe, start, classes=len(images.classes))
        initialize(detector, start)
        if recipe.method != "fp":
            few = normalize_images(images.images[: recipe.calibration_images], start.normalization)
            quantize_detector(
                detector,
                recipe.quant_policy,
                Precision.parse(recipe.precision),
                batches=few.to(recipe.device).split(CALIBRATION_BATCH),
            )
        fit(detector, recipe, images, folder)
        return detector, count_quantized(detector)

    @torch.no_grad()
    def predict(self, detector: nn.Module, images: Tensor) -> list[dict[str, Any]]:
        """Detect in uint8 images (N, 3, H, W); image ids count from 1, in COCO's result format."""
        detector.eval()
        device = next(detector.parameters()).device
        detections: list[dict[str, Any]] = []
        outputs: Iterator = (
            output
            for batch in images.split(_PREDICTION_BATCH)
            for output in detector(list(batch.to(device).float() / 255))
        )
        for image_id, output in enumerate(outputs, 1):
            detections += to_detections(
                image_id, output["boxes"], output["scores"], output["labels"]
            )
        return detections


def fit(detector: nn.Module, recipe: Recipe, images: DetectionSet, folder: Path) -> None:
    """Train `detector` in place for the recipe's iterations.

    The state (weights, optimizer, scheduler, iteration) is written every `checkpoint_every`
    iterations and at the end. What a step draws is a function of (seed, iteration), so going on from
    a state repeats the straight run bit for bit.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    solver = recipe.solver
    optimizer = build_optimizer(detector, solver)
    scheduler = build_scheduler(optimizer, solver)
    parts = {"model": detector, "optimizer": optimizer, "scheduler": scheduler}
    state = Path(folder) / _STATE
    first = _resume(state, parts)
    recorder = Recorder(folder, start=first, total=recipe.iterations, every=recipe.log_every)
    order = IndexStream(len(images), seed=recipe.seed)
    detector.train()
    for iteration in range(first, recipe.iterations):
        seed_everything(recipe.seed, iteration + 1)
        positions = range(iteration * recipe.batch_size, (iteration + 1) * recipe.batch_size)
        batch = _take(images, [order[position] for position in positions], recipe.device)
        losses = detector(*batch)
        total = sum(losses.values())
        values = {_LOSSES[name]: loss.item() for name, loss in losses.items()}
        try:
            check_finite(values, iteration)
        except FloatingPointError as error:
            good = iteration // recipe.checkpoint_every * recipe.checkpoint_every
            raise diverged(error, lr=recipe.lr, good=good) from None
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if recorder.due(iteration):
            recorder.write(iteration, {"total_loss": total.item(), **values}, optimizer)
        scheduler.step()
        done = iteration + 1
        if done % recipe.checkpoint_every == 0 or done == recipe.iterations:
            write_atomically(
                state, {"iteration": done, **{k: v.state_dict() for k, v in parts.items()}}
            )


def _resume(state: Path, parts: dict[str, Any]) -> int:
    """Fill the parts from a training state, if there is one; return the iterations it has done."""
    if not state.exists():
        return 0
    content = torch.load(state, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(content[name])
    _logger.info("going on after iteration %d", content["iteration"])
    return content["iteration"]


def _take(images: DetectionSet, indices: list[int], device: str) -> tuple[list[Tensor], list[dict]]:
    """Return the images and targets of a batch as torchvision's detectors want them."""
    pixels = images.images[indices].to(device).float() / 255
    targets = [
        {"boxes": images.boxes[i].to(device), "labels": images.labels[i].to(device)}
        for i in indices
    ]
    return list(pixels), targets
