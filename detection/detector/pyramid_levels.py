"""Levels of a feature pyramid: the stages they come from, their strides, their anchors."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lowbit.backbones import Level, pyramid_info


def select_levels(network: nn.Module, features: Sequence[str]) -> list[Level]:
    """Return the levels of a network by name, from fine to coarse.

    Raises:
        ValueError: a name is unknown, or the strides do not double from one level to the next.
    """
    known = {level.name: level for level in pyramid_info(network)}
    unknown = [name for name in features if name not in known]
    if unknown:
        raise ValueError(
            f"{type(network).__name__} has no stage {unknown[0]!r}; no detector was built. "
            f"Choose features from {', '.join(known)}."
        )
    levels = [known[name] for name in features]
    strides = [level.stride for level in levels]
    if any(after != 2 * before for before, after in pairwise(strides)):
        raise ValueError(
            f"the features {', '.join(features)} have strides {strides}; no detector was built. "
            "A pyramid needs strides that double from one to the next: list consecutive stages."
        )
    return levels


def level_strides(network: nn.Module, features: Sequence[str], *, added: int) -> list[int]:
    """Return the stride of every pyramid level in pixels, including `added` levels above the stages."""
    strides = [level.stride for level in select_levels(network, features)]
    return strides + [2**n * strides[-1] for n in range(1, added + 1)]


def anchor_sizes(strides: Sequence[int], scales: Sequence[float]) -> list[list[float]]:
    """Return the anchor sides at every level in pixels: `scales` times the level's stride.

    Example:
        >>> anchor_sizes([8, 16], [2.0, 3.0])
        [[16.0, 24.0], [32.0, 48.0]]
    """
    return [[stride * scale for scale in scales] for stride in strides]
