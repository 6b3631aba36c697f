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
    """A network's tensors without their values.

    Attributes:
        shapes: of its state dict.
        parameters: names of those that are parameters.
    """

    shapes: dict[str, torch.Size]
    parameters: frozenset[str]


@functools.cache
def signature(architecture: str) -> Signature:
    """Return a network's names and shapes; allocates nothing.

    Raises:
        ValueError: no such network.
    """
    with torch.device("meta"):
        network = create_backbone(architecture)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return Signature(shapes, frozenset(name for name, _ in network.named_parameters()))


def candidates() -> tuple[str, ...]:
    """Return the networks a foreign file is compared with."""
    return (*list_backbones(), *_COMMON)


@dataclass(frozen=True)
class Guess:
    """What a file may hold.

    Attributes:
        complete: networks that agree with it tensor for tensor.
        nearest: the one that agrees most.
        match: of the nearest.
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
    """Return whether a ViT-S is MoCo v3's, with 12 attention heads, and the network has 6, or back.

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
    """Share of the tensors of network and file together that agree."""
    same = len(m.found) - len(m.mismatched)
    return same / (len(m.found) + len(m.missing) + len(m.extra))
