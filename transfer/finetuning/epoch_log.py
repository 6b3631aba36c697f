"""Per-epoch log of a training."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lowbit.data import Images
from lowbit.quant import FP, TransitionCounter, latent_statistics, quantized_layers
from lowbit.training.metrics_log import METRICS, MetricsLog, read_lines
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.objectives import Tally
from lowbit.transfer.scoring.predict import predicted_classes

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

BINS = 20  # of the distances of latent weights

_logger = logging.getLogger(__name__)


class EpochLog(MetricsLog):
    """Write a line of metrics.jsonl per epoch, counted from 0; about ten also go to the log.

    Args:
        folder: of the training.
        epochs: in total.
        done: epochs done before; lines of later ones are dropped.
    """

    def __init__(self, folder: Path, *, epochs: int, done: int = 0) -> None:
        super().__init__(folder, in_state=lambda line: line["epoch"] < done)
        self.epochs = epochs

    def write(self, epoch: int, *, lr: float, loss: dict[str, float], **seen: Any) -> None:
        """Write the line of an epoch.

        Args:
            seen: other values of the epoch, in plain JSON types.
        """
        self.append({"epoch": epoch, "lr": lr, "loss": loss, **seen})
        if (epoch + 1) % max(1, self.epochs // 10) == 0:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in loss.items())
            tops = seen.get("accuracy", {}).items()
            scored = "".join(f"  {name} {value:.2f} %" for name, value in tops)
            _logger.info(
                "epoch %d/%d  lr %g  loss %s%s", epoch + 1, self.epochs, lr, losses, scored
            )


class Accuracies:
    """Top-1 in percent: on training views, and on the central view of validation images.

    The first is counted in the training's own forward passes, at no extra cost.
    """

    def __init__(
        self, network: nn.Module, tally: Tally, val: Images | None, *, recipe: "Recipe"
    ) -> None:
        self.network, self.tally, self.val, self.recipe = network, tally, val, recipe

    def __call__(self, epoch: int) -> dict[str, Any]:
        accuracy = {"train": self.tally.take()}
        if self.val is not None:
            classes = predicted_classes(
                self.network,
                self.val,
                center(self.recipe),
                batch_size=self.recipe.eval_batch_size,
                workers=self.recipe.num_workers,
            )
            right = int((classes == self.val.labels).sum())
            accuracy["val"] = 100 * right / len(self.val)
        return {"accuracy": accuracy}


class Transitions:
    """Log how often quantized weights change level, and where latent weights are between thresholds.

    A t-variant knows its own rates. With any other optimizer, code changes are counted after each
    step.

    Attributes:
        kept: objects whose state is part of the training's.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.kept, self.source = network, {}, None
        self.layers = {
            name: layer
            for name, layer in quantized_layers(network).items()
            if layer.w_quant.bits < FP.weight_bits
        }
        if hasattr(optimizer, "rates"):
            self.source = optimizer
        elif self.layers:
            self.source = TransitionCounter(self.layers)
            self.kept = {"transitions": self.source}
            optimizer.register_step_post_hook(self.source)

    def __call__(self, epoch: int) -> dict[str, Any]:
        if self.source is None:  # weights in full precision have no levels
            return {}
        return {"transitions": self.source.rates(), "latent": self._latent()}

    def _latent(self) -> dict[str, Any]:
        """Count the weights of each layer by their distance to the nearest transition point."""
        found = latent_statistics(self.network, bins=BINS)
        return {
            "names": list(found),
            "edges": [0.5 * edge / BINS for edge in range(BINS + 1)],  # in steps of the quantizer
            "histogram": [
                [round(share * self.layers[name].weight.numel()) for share in layer["distance"]]
                for name, layer in found.items()
            ],
            "mean_distance": [layer["mean_distance"] for layer in found.values()],
        }


def oscillations(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what dampens or freezes oscillating weights does, for the curve; empty if nothing does."""
    control = getattr(optimizer, "oscillation", None)
    return {} if control is None else {"oscillation": control.report()}


def transition_curve(folder: Path) -> dict[str, list[float]]:
    """Return what a training's curve says of transitions, for its result: a list each, by epoch.

    Each is the mean over the quantized layers at the epoch's end, to six digits: the transition rate that
    the controller sees (`running`, K) and the `effective_step`; with a schedule also its `target` (R), the
    learning rate of latent weights (`lr`, U), and `gap`, the mean |K - R|.

    Args:
        folder: where its metrics.jsonl is; without one, or without quantized weights, there is no list.
    """
    found: dict[str, list[float]] = {}
    for line in read_lines(folder / METRICS):
        rates = line.get("transitions") or {}
        layers = range(len(rates.get("names", ())))
        by_layer = {
            name: value if isinstance(value, list) else [value] * len(layers)
            for name, value in rates.items()
            if name in ("running", "effective_step", "target", "lr")
        }
        if "target" in by_layer:
            pairs = zip(by_layer["running"], by_layer["target"], strict=True)
            by_layer["gap"] = [abs(running - target) for running, target in pairs]
        for name, values in by_layer.items():
            found.setdefault(name, []).append(float(f"{sum(values) / len(layers):.6g}"))
    return found
