"""From a backbone or a detector file to a detector ready for training, the same for every engine.

Both engines' detectors keep the network under `detector.backbone.bottom_up.network`, with the names
it has everywhere else. That module is what a backbone file fills, and all that is quantized.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones import create_backbone, load_backbone
from data import list_datasets, normalization
from detection.files import FORMAT, read_detector, restore_detector
from quant import (
    Precision,
    QuantPolicy,
    calibrate,
    quantize,
    quantized_layers,
    scales,
    set_precision,
)

_logger = logging.getLogger(__name__)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std of RGB in units of 0..1
CALIBRATION_BATCH = 16  # images in one forward pass


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        network: the backbone, with its weights.
        state: the detector to go on from; None: a fresh pyramid and head.
        normalization: (mean, std) of the images the backbone was trained on, RGB, units of 0..1.
        backbone: method, architecture and SHA-256 of the backbone file.
        report: which file was loaded, its SHA-256, tensors matched and in all.
    """

    network: nn.Module
    state: dict[str, Tensor] | None
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    backbone: dict[str, Any]
    report: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The backbone's name."""
        return self.backbone["architecture"]


def start_from_backbone(checkpoint: str, architecture: str | None = None) -> Start:
    """Load a backbone file; a tensor of the backbone that the file lacks is refused."""
    network, report = load_backbone(checkpoint, architecture)
    pretraining = report.meta.get("data")
    constants = normalization(pretraining) if pretraining in list_datasets() else IMAGENET
    return Start(
        network=network,
        state=None,
        normalization=constants,
        backbone={
            "method": report.meta.get("method", "-"),
            "architecture": report.architecture,
            "sha256": report.sha256,
        },
        report={
            "file": "backbone",
            "sha256": report.sha256,
            "format": report.format,
            "matched": report.matched,
            "total": report.total,
        },
    )


def start_from_detector(detector: str, *, engine: str, backbone_sha256: str | None = None) -> Start:
    """Load a full-precision detector file that `engine` trained.

    Args:
        detector: the file.
        engine: the engine that is to go on.
        backbone_sha256: the backbone file the detector must have been trained from; None: any.

    Raises:
        ValueError: the file is another engine's, already quantized, or of another backbone.
    """
    state, meta = read_detector(detector, engine=engine)
    if meta["precision"] != "FP":
        raise ValueError(
            f"{detector} holds a detector at {meta['precision']}; nothing was trained. "
            "Quantization starts from a full-precision one: give the detector of a job with method fp."
        )
    backbone = meta["backbone"]
    if backbone_sha256 not in (None, backbone["sha256"]):
        raise ValueError(
            f"{detector} was trained from backbone {backbone['sha256'][:12]}..., but the checkpoint "
            f"given is {backbone_sha256[:12]}...; nothing was trained. Give the detector that was "
            "trained from this checkpoint, or leave the checkpoint out."
        )
    return Start(
        network=create_backbone(backbone["architecture"]),
        state=state,
        normalization=tuple(tuple(values) for values in meta["normalization"]),
        backbone=backbone,
        report={
            "file": "detector",
            "sha256": meta["sha256"],
            "format": FORMAT,
            "matched": len(state),
            "total": len(state),
        },
    )


def bottom_up(detector: nn.Module) -> nn.Module:
    """Return the network inside a detector."""
    return detector.backbone.bottom_up.network


def initialize(detector: nn.Module, start: Start) -> None:
    """Give a freshly built detector the weights it starts from, all of them."""
    if start.state is None:
        bottom_up(detector).load_state_dict(start.network.state_dict())
    else:
        restore_detector(detector, start.state, source="the detector file")


def quantize_detector(
    detector: nn.Module, policy: QuantPolicy, precision: Precision, *, batches: Iterable[Tensor]
) -> None:
    """Quantize a detector's backbone and set its ranges from training images.

    Args:
        detector: with the weights it is to start from.
        policy: which layers, and how.
        precision: bits from now on.
        batches: normalized training images, each (N, 3, H, W).

    Raises:
        ValueError: the policy's quantizer rescales a layer's output, and nothing normalizes it.
    """
    network = bottom_up(detector)
    if "Interval" in (policy.weight.kind, policy.activation.kind):
        _require_trainable_norm(network)
    quantize(network, policy)
    calibrate(network, batches)
    set_precision(network, precision)
    _logger.info(
        "%s: %d quantized layers, %d learned scales", precision, *count_quantized(detector).values()
    )


def count_quantized(detector: nn.Module) -> dict[str, int]:
    """Count a detector's quantized layers and learned scales."""
    return {
        "quantized_layers": len(quantized_layers(detector)),
        "learned_scales": len(scales(detector)),
    }


def _require_trainable_norm(network: nn.Module) -> None:
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    trainable = [m for m in norms if m.weight is not None and m.weight.requires_grad]
    if not norms or len(trainable) < len(norms):
        raise ValueError(
            f"the Interval quantizer fixes a layer's output range, which only a trainable batch norm "
            f"behind it can undo, but {len(norms) - len(trainable)} of {len(norms)} here are frozen; "
            "nothing was quantized. Use NORM BN or SyncBN, or policy lsq."
        )


def normalize_images(images: Tensor, constants: tuple) -> Tensor:
    """Return uint8 RGB images (N, 3, H, W) as floats, less the mean, over the deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    return (images.float() / 255 - mean) / std
