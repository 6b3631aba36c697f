"""The Detectron2 engine: train recipes by configuration and trainer. Needs Detectron2."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.engine.hooks import PeriodicCheckpointer
from torch import nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.initial_weights import Start, chunks
from lowbit.detection.detector.quantization_report import describe_quantization
from lowbit.detection.recipe import Recipe
from lowbit.detection.with_detectron2.build_detector import build_detector
from lowbit.detection.with_detectron2.catalog import instances_to_detections, register
from lowbit.detection.with_detectron2.recipe_to_config import to_cfg
from lowbit.detection.with_detectron2.trainer import LowbitTrainer
from lowbit.quant import require_asked

_PREDICTION_BATCH = 32  # images in one forward pass


class _RecipeTrainer(LowbitTrainer):
    """The trainer of a recipe, with its own records and evaluation."""

    def __init__(self, cfg, evaluate: Callable[[nn.Module], dict[str, float]]) -> None:
        self.score = evaluate
        super().__init__(cfg)

    def build_writers(self) -> list:
        return []

    def evaluate(self) -> dict[str, dict[str, float]]:
        scores = self.score(self.model)
        self.model.train()
        return {"bbox": scores}

    def build_hooks(self) -> list:
        hooks = super().build_hooks()
        (self.saver,) = (hook for hook in hooks if isinstance(hook, PeriodicCheckpointer))
        self.saver.max_to_keep = 1  # only the newest training state is needed to resume
        return hooks

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        if self.checkpointer.has_checkpoint():
            newest = self.checkpointer.get_checkpoint_file()
            self.saver.recent_checkpoints = [newest]
            for state in Path(newest).parent.glob("model_[0-9]*.pth"):
                if state.name != Path(newest).name:
                    state.unlink()


class Detectron2Engine:
    """Detectors of Detectron2; the contract is `lowbit.detection.engine_contract.Engine`."""

    name = "detectron2"

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a new network of `start.architecture`."""
        return build_detector(to_cfg(recipe, start, classes=classes))

    def train(
        self,
        recipe: Recipe,
        start: Start,
        images: DetectionSet,
        folder: Path,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, resuming from the state in `folder`, if any; return detector and details."""
        name = f"{recipe.dataset}/{images.split}"
        register(name, lambda: images)
        cfg = to_cfg(recipe, start, classes=len(images.classes), folder=folder, dataset=name)
        # Detectron2 adds its own handlers unless its logger already has some.
        logging.getLogger("detectron2").setLevel(logging.INFO)
        trainer = _RecipeTrainer(cfg, evaluate)
        trainer.resume_or_load(resume=True)
        trainer.train_rest()
        return trainer.model, describe_quantization(trainer.model)

    def inputs(self, images: DetectionSet, places: Iterable[int], recipe: Recipe) -> list[dict]:
        """Return the images at `places` as inputs of Detectron2's detectors, resized as it does."""
        resize = ResizeShortestEdge(recipe.test_size or 0, recipe.max_size)
        inputs = []
        for place in places:
            pixels = images.image(place).permute(1, 2, 0).contiguous().numpy()
            resized = resize.get_transform(pixels).apply_image(pixels)
            inputs.append(
                {
                    "image": torch.from_numpy(resized.transpose(2, 0, 1).copy()),
                    "height": pixels.shape[0],
                    "width": pixels.shape[1],
                }
            )
        return inputs

    @torch.no_grad()
    def predict(
        self, detector: nn.Module, images: DetectionSet, recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Run the detector on all images of a set; return COCO's result format with the set's ids."""
        detector.eval()
        detections: list[dict[str, Any]] = []
        with require_asked(detector):
            for places in chunks(len(images), _PREDICTION_BATCH):
                outputs = detector(self.inputs(images, places, recipe))
                for place, output in zip(places, outputs, strict=True):
                    detections += instances_to_detections(
                        images.ids[place], output["instances"], images.category_ids
                    )
        return detections
