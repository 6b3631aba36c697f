"""Initial weights of a detector, from a backbone or detector file; for every engine.

Every engine's detector keeps the network under `detector.backbone` with its usual names (a C4
detector has the last stage in its head). A backbone file fills these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lowbit.backbones import create_backbone, load_backbone, pyramid_info
from lowbit.data import list_datasets, normalization
from lowbit.detection.detector.detector_file import (
    FORMAT,
    check_relu,
    read_detector,
    restore_detector,
)
from lowbit.detection.detector.parts import bottom_up

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std of RGB in units of 0..1
CALIBRATION_BATCH = 16  # images in one forward pass


@dataclass(frozen=True)
class Start:
    """The weights a training starts from.

    Attributes:
        network: the backbone, with its weights.
        state: state dict of the detector to start from; None: a new pyramid and head.
        normalization: (mean, std) of the images the backbone was trained on, RGB, units of 0..1.
        backbone: method, architecture and SHA-256 of the backbone file.
        report: the file loaded, its SHA-256, and the numbers of matched and of all tensors.
    """

    network: nn.Module
    state: dict[str, Tensor] | None
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    backbone: dict[str, Any]
    report: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The name of the network."""
        return self.backbone["architecture"]


def start_from_backbone(checkpoint: str, architecture: str | None = None) -> Start:
    """Load a backbone file; a tensor of the backbone that the file lacks is refused."""
    network, report = load_backbone(checkpoint, architecture)
    pretraining = report.meta.get("data")
    return Start(
        network=network,
        state=None,
        normalization=_constants(network, pretraining),
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


def _constants(network: nn.Module, pretraining: str | None) -> tuple[tuple[float, ...], ...]:
    """Return mean and std of the images a network was trained on: those of the set its file names if
    it is registered, else those that timm publishes with the network."""
    if pretraining in list_datasets():
        return normalization(pretraining)
    config = getattr(network, "default_cfg", None) or {}
    return (tuple(config.get("mean", IMAGENET[0])), tuple(config.get("std", IMAGENET[1])))


def start_from_random(architecture: str | None) -> Start:
    """Start from random weights, as requested; they are drawn from the detector's seed.

    Raises:
        ValueError: no architecture is given.
    """
    if architecture is None:
        raise ValueError(
            "a backbone with random weights needs an architecture; nothing was trained. Give "
            "architecture, for example resnet18."
        )
    return Start(
        network=create_backbone(architecture),
        state=None,
        normalization=IMAGENET,
        backbone={"method": "random", "architecture": architecture, "sha256": None},
        report={"file": None, "sha256": None, "format": "random", "matched": 0, "total": 0},
    )


def start_from_detector(
    detector: str, *, engine: str, fpn_relu: bool = False, backbone_sha256: str | None = None
) -> Start:
    """Load a full-precision detector file that `engine` trained.

    Args:
        detector: the file.
        engine: the engine that will use it.
        fpn_relu: whether a ReLU between pyramid and heads is wanted.
        backbone_sha256: the backbone file it must have been trained from; None: any.

    Raises:
        ValueError: the file is from another engine, already quantized, or has another backbone or
            fpn_relu.
    """
    state, meta = read_detector(detector, engine=engine)
    if meta["precision"] != "FP":
        raise ValueError(
            f"{detector} holds a detector at {meta['precision']}; nothing was trained. "
            "Quantization starts from a full-precision one: give the detector of a job with method fp."
        )
    check_relu(detector, meta, fpn_relu)
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


def initialize(detector: nn.Module, start: Start) -> None:
    """Load all initial weights into a newly built detector.

    With random weights, the detector keeps those it was built with.

    Raises:
        ValueError: a tensor of the detector's network is missing from them.
    """
    if start.state is not None:
        restore_detector(detector, start.state, source="the detector file")
        return
    if start.report.get("format") == "random":
        return
    _fill(bottom_up(detector), start.network)
    res5 = getattr(getattr(detector, "roi_heads", None), "res5", None)
    if res5 is not None:  # of a C4 detector; a norm after its blocks is not in the backbone
        stage = start.network.get_submodule(pyramid_info(start.network)[-1].module)
        for name, block in stage.named_children():
            _fill(res5.get_submodule(name), block)


def _fill(part: nn.Module, network: nn.Module) -> None:
    """Load the tensors of `part` from `network`, which may have stages that no detector runs."""
    own = part.state_dict()
    state = {name: tensor for name, tensor in network.state_dict().items() if name in own}
    restore_detector(part, state, source="the backbone file")


def chunks(count: int, size: int) -> Iterator[range]:
    """Yield the indices 0..count in batches of `size`; the last may be shorter."""
    for first in range(0, count, size):
        yield range(first, min(first + size, count))
