"""A network to export, and what it takes and gives."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lowbit.backbones import load_backbone
from lowbit.data import Center, locate, open_images
from lowbit.export.onnx_export import ExportError
from lowbit.quant import FP, Precision, QuantPolicy, get_policy, quantize
from lowbit.quant.integer.integer_grid import MOST_BITS
from lowbit.quant.precision import OFF
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.views import center
from lowbit.transfer.recipe.recipe import Recipe
from lowbit.transfer.scoring.scored_network import ScoredNetworks


@dataclass(frozen=True)
class Subject:
    """A network at a precision, in eval mode on the CPU.

    Attributes:
        network: maps images (N, 3, size, size) to logits (N, C), or to features (N, D).
        precision: its bits.
        policy: what is quantized, and how.
        architecture: of its backbone.
        checkpoint_sha256: of the file that it comes from.
        dataset: image set that it was calibrated on.
        view: how an image is resized and cropped.
        mean, std: of the pixels, in 0..1, by channel.
        classes: names, in the order of the logits; None: it returns features.
    """

    network: nn.Module
    precision: Precision
    policy: QuantPolicy
    architecture: str
    checkpoint_sha256: str
    dataset: str
    view: Center
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] | None

    @property
    def output(self) -> str:
        """The name of what the network returns."""
        return "features" if self.classes is None else "logits"


def of_job(networks: ScoredNetworks, precision: Precision | str, checkpoint: str | Path) -> Subject:
    """Return a network of a transfer job, as it was scored.

    Raises:
        FileNotFoundError: the checkpoint, or a file of the job, is missing.
        ExportError: the precision has more bits than integer kernels, or the network is of videos.
        ValueError: the job has no such network.
    """
    facts, precision = networks.facts, checked_precision(precision)
    if facts.frames is not None:
        raise ExportError(
            f"{networks.path} holds networks of videos ({facts.frames} frames); nothing was written. Only "
            "networks of images are exported."
        )
    return Subject(
        network=networks.rebuild(precision, checkpoint),
        precision=precision,
        policy=get_policy(facts.policy),
        architecture=facts.architecture,
        checkpoint_sha256=facts.checkpoint_sha256,
        dataset=facts.dataset,
        view=facts.view,
        mean=facts.mean,
        std=facts.std,
        classes=facts.classes,
    )


def of_checkpoint(
    checkpoint: str | Path,
    precision: Precision | str,
    *,
    dataset: str,
    policy: str,
    image_size: int,
    architecture: str | None = None,
    data_root: str | None = None,
) -> Subject:
    """Return the backbone of a file, which gives features, calibrated on an image set's training images.

    Raises:
        FileNotFoundError: the checkpoint or the image set is missing.
        ExportError: the precision has more bits than integer kernels.
        ValueError: the file does not fill a network, or the policy or the image set is unknown.
    """
    precision = checked_precision(precision)
    recipe = Recipe(
        checkpoint=str(checkpoint),
        architecture=architecture,
        dataset=dataset,
        data_root=data_root,
        image_size=image_size,
        policy=policy,
        precisions=(precision,),
    )
    spec = locate(dataset, root=data_root)
    backbone, report = load_backbone(checkpoint, architecture)
    backbone.eval().requires_grad_(False)
    if precision != FP:
        quantize(backbone, get_policy(policy), precision)
        calibrate_on(
            backbone,
            open_images(dataset, "train", root=data_root),
            recipe=recipe,
            device=torch.device("cpu"),
        )
    return Subject(
        network=backbone,
        precision=precision,
        policy=get_policy(policy),
        architecture=report.architecture,
        checkpoint_sha256=report.sha256,
        dataset=dataset,
        view=center(recipe),
        mean=spec.mean,
        std=spec.std,
        classes=None,
    )


def checked_precision(text: Precision | str) -> Precision:
    """Parse a precision that integer kernels have.

    Raises:
        ExportError: it has more bits.
        ValueError: it is no precision.
    """
    precision = Precision.parse(text)
    bits = {precision.weight_bits, precision.activation_bits} - {OFF}
    if any(b > MOST_BITS for b in bits):
        raise ExportError(
            f"{precision} has more than {MOST_BITS} bits, which integer kernels do not; nothing was "
            f"written. Export it at {MOST_BITS}w{MOST_BITS}a or fewer bits, or at FP."
        )
    return precision
