"""Guess the network in a file from the names and shapes of its tensors."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.layouts import Match, match
from lowbit.backbones.networks.registry import create_backbone, list_backbones

_COMMON = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_small_patch8_224",
    "vit_base_patch16_224",
)


@dataclass(frozen=True)
class Signature:
    """Names and shapes of a network's tensors.

    Attributes:
        shapes: of its state dict.
        parameters: names of those that are parameters.
    """

    shapes: dict[str, torch.Size]
    parameters: frozenset[str]


@functools.cache
def signature(architecture: str) -> Signature:
    """Return a network's tensor names and shapes without allocating memory.

    Raises:
        ValueError: unknown network.
    """
    with torch.device("meta"):
        network = create_backbone(architecture)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return Signature(shapes, frozenset(name for name, _ in network.named_parameters()))


def candidates() -> tuple[str, ...]:
    """Return the networks that a file from another project is compared with."""
    return (*list_backbones(), *_COMMON)


@dataclass(frozen=True)
class Guess:
    """Networks that a file may contain.

    Attributes:
        complete: networks whose tensors all match.
        nearest: the network with the most matching tensors.
        match: match of the nearest network.
    """

    complete: tuple[str, ...]
    nearest: str
    match: Match


def guess(containers: Mapping[str, Mapping[str, Tensor]]) -> Guess:
    """Compare a file with every candidate."""
    matches = {name: match(containers, signature(name).shapes) for name in candidates()}
    nearest = max(matches, key=lambda name: _agreement(matches[name]))
    complete = tuple(
        name for name, m in matches.items() if m.complete and not has_wrong_heads(name, m.found)
    )
    if complete and nearest not in complete:
        nearest = complete[0]
    return Guess(complete, nearest, matches[nearest])


def has_wrong_heads(architecture: str, found: Mapping[str, Tensor]) -> bool:
    """Return whether file and network disagree on a ViT-S's heads: MoCo v3 has 12, others have 6.

    No shape shows the number of heads. MoCo v3's position embedding does: it is a fixed sinusoid, and
    exactly zero for the class token (https://arxiv.org/abs/2104.02057, Appendix A).
    """
    position = found.get("pos_embed")
    small = "vit_small" in architecture or "deit_small" in architecture
    if position is None or position.dim() != 3 or not small:
        return False
    fixed = bool((position[:, 0] == 0).all())
    return fixed != (architecture == "vit_small_moco_v3")


def _agreement(m: Match) -> float:
    """Matching tensors as a share of all tensors in the network or the file."""
    same = len(m.found) - len(m.mismatched)
    return same / (len(m.found) + len(m.missing) + len(m.extra))
