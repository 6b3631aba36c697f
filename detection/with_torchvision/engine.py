"""The torchvision engine: detectors trained in a plain, resumable loop."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.frozen_stages import build_network
from lowbit.detection.detector.initial_weights import Start, chunks, initialize
from lowbit.detection.detector.quantization_report import describe_quantization
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.engine_contract import calibration_batches
from lowbit.detection.evaluation.detections_file import to_detections
from lowbit.detection.recipe import Recipe
from lowbit.detection.solver import build_optimizer, build_scheduler
from lowbit.detection.with_torchvision.faster_rcnn import build_faster_rcnn
from lowbit.detection.with_torchvision.retinanet import build_retinanet
from lowbit.detection.with_torchvision.training_batches import clustered_anchors, take
from lowbit.detection.with_torchvision.yolov4 import build_yolov4
from lowbit.quant import require_asked, reuse_weights
from lowbit.training.divergence import diverged_at_iteration
from lowbit.training.job_state import Workspace
from lowbit.training.metrics_log import IterationLog, record_scores
from lowbit.training.mixed_precision import MixedPrecision
from lowbit.training.seeding import IndexStream, seed_everything, seed_of
from lowbit.training.stopping import stop_request

_STATE = "training.pth"
_BUILDERS = {
    "retinanet": build_retinanet,
    "faster_rcnn": build_faster_rcnn,
    "yolov4": build_yolov4,
}
_LOSSES = {  # Detectron2's names
    "classification": "loss_cls",
    "bbox_regression": "loss_box_reg",
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_box_reg",
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_loc",
    "loss_cls": "loss_cls",
    "loss_obj": "loss_obj",
}
_PREDICTION_BATCH = 32  # images in one forward pass


class TorchvisionEngine:
    """Detectors of torchvision.models.detection; the contract is `lowbit.detection.engine_contract.Engine`."""

    name = "torchvision"

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a new network of `start.architecture`."""
        with torch.random.fork_rng(devices=[]):  # built on the CPU, then moved
            torch.manual_seed(seed_of(recipe.seed, 0))
            network = build_network(
                start.architecture,
                norm=recipe.backbone_norm,
                freeze_at=recipe.freeze_at,
                last=recipe.features[-1],
            )
            detector = _BUILDERS[recipe.meta_architecture](
                recipe, network, classes=classes, normalization=start.normalization
            )
        return detector.to(recipe.device)

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
        detector = self.build(recipe, start, classes=len(images.classes))
        clustered = (
            recipe.meta_architecture == "yolov4" and recipe.yolov4_settings.anchors == "kmeans"
        )
        if clustered and start.state is None:  # else the detector file has them
            detector.head.anchors.copy_(clustered_anchors(images, recipe))
        initialize(detector, start)
        if recipe.method != "fp":
            quantize_detector(
                detector,
                recipe.quant_policy,
                recipe.precision,
                batches=calibration_batches(self, images, recipe),
                scope=recipe.scope,
            )
        fit(detector, recipe, images, folder, evaluate)
        return detector, describe_quantization(detector)

    def inputs(self, images: DetectionSet, places: Iterable[int], recipe: Recipe) -> list[Tensor]:
        """Return the images at `places` as inputs of torchvision's detectors, in 0..1."""
        return [images.image(place).to(recipe.device).float() / 255 for place in places]

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
                    detections += to_detections(
                        images.ids[place],
                        output["boxes"],
                        output["scores"],
                        output["labels"],
                        images.category_ids,
                    )
        return detections


def fit(
    detector: nn.Module,
    recipe: Recipe,
    images: DetectionSet,
    folder: Path,
    evaluate: Callable[[nn.Module], dict[str, float]],
) -> None:
    """Train `detector` in place for the recipe's iterations.

    The state (weights, optimizer, scheduler, loss scale, iteration) is written every `checkpoint_every`
    iterations, at the end, and on a signal. The randomness of a step is a function of (seed, iteration), so a
    resumed run equals an uninterrupted one bit for bit.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
        Preempted: a signal arrived; the state was saved after the current iteration.
    """
    solver = recipe.solver
    optimizer = build_optimizer(detector, solver)
    scheduler = build_scheduler(optimizer, solver)
    device = torch.device(recipe.device)
    half = "fp16" if device.type == "cuda" else "bf16"
    arithmetic = MixedPrecision(device, amp=half if recipe.amp else "off")
    parts = {
        "model": detector,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "arithmetic": arithmetic,
    }
    workspace = Workspace(folder, key={}, file=_STATE)  # the job owns the whole folder
    saved = first = _resume(workspace, parts)
    log = IterationLog(folder, start=first, total=recipe.iterations, every=recipe.log_every)
    order = IndexStream(len(images.annotated), seed=recipe.seed)
    detector.train()
    with stop_request() as stop:
        for iteration in range(first, recipe.iterations):
            seed_everything(recipe.seed, iteration + 1)
            positions = range(iteration * recipe.batch_size, (iteration + 1) * recipe.batch_size)
            chosen = [order[position] for position in positions]
            batch, done = take(images, chosen, recipe), iteration + 1
            with arithmetic.autocast(), reuse_weights(detector):  # the heads run once per level
                losses = detector(*batch)
            total = sum(losses.values())
            found = torch.stack(list(losses.values())).tolist()  # one transfer from the device
            values = {_LOSSES[name]: value for name, value in zip(losses, found, strict=True)}
            if not math.isfinite(sum(found)):  # before the optimizer's step
                raise diverged_at_iteration(done, values, lr=recipe.lr, good=saved)
            optimizer.zero_grad()
            arithmetic.backward(total)
            arithmetic.step(optimizer)
            if log.due(iteration):
                log.write(iteration, {"total_loss": total.item(), **values}, optimizer)
            scheduler.step()
            if done in recipe.evaluate_at and done < recipe.iterations:
                record_scores(folder, done, evaluate(detector))
                detector.train()
            stopping = stop.reached()
            if stopping or done % recipe.checkpoint_every == 0 or done == recipe.iterations:
                workspace.save(iteration=done, **{k: v.state_dict() for k, v in parts.items()})
                saved = done
            if stopping:
                place = f"after iteration {done} of {recipe.iterations}"
                raise stop.preempted(place, workspace.state_path)


def _resume(workspace: Workspace, parts: dict[str, Any]) -> int:
    """Load the parts from a training state, if there is one; return its number of iterations."""
    state = workspace.resume()
    if state is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["iteration"]
