"""Learning from a full-precision teacher's predictions."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.backbones import load_backbone
from lowbit.backbones.networks.video_frames import average_frames
from lowbit.quant.adaptive.joint import distillation
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.finetuning.training import Network
from lowbit.transfer.probes.checkpoint_head import stored_classifier

if TYPE_CHECKING:
    from lowbit.transfer.recipe.sections import Distillation

_logger = logging.getLogger(__name__)


class Distilled(CrossEntropy):
    """w T^2 KL(teacher || student) + (1 - w) cross-entropy, of softmaxes at temperature T.

    With w = T = 1 it is ReActNet's distributional loss (Liu et al. 2020, Eq. 5) minus the teacher's
    own entropy, which has no gradient; T^2 keeps the gradient's size (Hinton et al. 2015). The
    teacher sees the same views in full precision and is not trained.
    """

    def __init__(self, teacher: nn.Module, section: "Distillation") -> None:
        super().__init__()
        self.teacher = teacher
        self.temperature, self.weight = section.temperature, section.weight

    def loss(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self.teacher(x).float()
        loss = self.weight * divergence(taught, logits, self.temperature)
        if self.weight < 1:
            loss = loss + (1 - self.weight) * super().loss(logits, x, y)
        return loss


def divergence(taught: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(softmax(taught / T) || softmax(logits / T)), mean over a batch (B, C)."""
    return temperature**2 * distillation(logits / temperature, taught / temperature)


def load_teacher(
    section: "Distillation", *, num_classes: int, frames: int | None, device: torch.device
) -> tuple[Network, dict[str, Any]]:
    """Return a frozen teacher with the classifier from its file, and its description.

    Args:
        frames: per video, for video sets; their features are averaged.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: backbone or classifier is missing or has another shape.
    """
    backbone, report = load_backbone(section.teacher, section.architecture)
    _logger.info("teacher: %s", report)
    classifier = stored_classifier(
        section.teacher, num_features=backbone.num_features, num_classes=num_classes
    )
    if frames:
        average_frames(backbone, frames)
    teacher = Network(backbone, *classifier).to(device).eval().requires_grad_(False)
    return teacher, {"architecture": report.architecture, "sha256": report.sha256}
