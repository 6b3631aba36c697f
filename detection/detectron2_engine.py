"""The Detectron2 engine: a recipe's detector through the configuration and trainer. Needs Detectron2."""

import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.engine.hooks import PeriodicCheckpointer
from torch import Tensor, nn

from detection.assembly import build_detector
from detection.catalog import instances_to_detections, register
from detection.config import to_cfg
from detection.datasets import DetectionSet
from detection.preparation import Start, count_quantized
from detection.recipe import Recipe
from detection.trainer import LowbitTrainer

_PREDICTION_BATCH = 32  # images in one forward pass


class _RecipeTrainer(LowbitTrainer):
    """The trainer of a recipe's run, which keeps its own records and is evaluated from outside."""

    def build_writers(self) -> list:
        return []

    def build_hooks(self) -> list:
        hooks = super().build_hooks()
        for hook in hooks:
            if isinstance(hook, PeriodicCheckpointer):
                hook.max_to_keep = 1  # a training state serves to go on, and only the newest does
        return hooks


class Detectron2Engine:
    """RetinaNet of Detectron2; the contract is `detection.engines.Engine`."""

    name = "detectron2"

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a fresh network of `start.architecture`."""
        return build_detector(to_cfg(recipe, start, classes=classes))

    def train(
        self, recipe: Recipe, start: Start, images: DetectionSet, folder: Path
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, going on from what a killed run left in `folder`; return detector and details."""
        name = f"{recipe.dataset}/{images.split}"
        register(name, lambda: images)
        cfg = to_cfg(recipe, start, classes=len(images.classes), folder=folder, dataset=name)
        # Detectron2 sets up handlers of its own unless its logger already speaks.
        logging.getLogger("detectron2").setLevel(logging.INFO)
        trainer = _RecipeTrainer(cfg)
        trainer.resume_or_load(resume=True)
        if trainer.start_iter < trainer.max_iter:
            trainer.train()
        return trainer.model, count_quantized(trainer.model)

    @torch.no_grad()
    def predict(self, detector: nn.Module, images: Tensor) -> list[dict[str, Any]]:
        """Detect in uint8 images (N, 3, H, W); image ids count from 1, in COCO's result format."""
        detector.eval()
        detections: list[dict[str, Any]] = []
        for first in range(0, len(images), _PREDICTION_BATCH):
            batch = [{"image": image} for image in images[first : first + _PREDICTION_BATCH]]
            for image_id, output in enumerate(detector(batch), first + 1):
                detections += instances_to_detections(image_id, output["instances"])
        return detections
