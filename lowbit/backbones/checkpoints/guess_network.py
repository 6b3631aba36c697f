"""Guess the network in a file from the names and shapes of its tensors.

Shapes show neither strides nor attention heads nor activations. Networks that differ in these alone
tie, and only what a file's names say of its origin (`_ORIGINS`) decides between them.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lowbit.backbones.checkpoints.conversions.find import find
from lowbit.backbones.checkpoints.conversions.timm_conversion import hub_tensors
from lowbit.backbones.checkpoints.conversions.todays_networks import of_today
from lowbit.backbones.checkpoints.match import Containers, Match, match
from lowbit.backbones.networks.registry import (
    BACKBONES,
    DEEPEST_CIFAR_BLOCKS,
    cifar_resnet,
    create_backbone,
)
from lowbit.backbones.networks.without_values import without_values
from lowbit.common.text import printable

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

_THIRD_STAGE = re.compile(r"(?P<prefix>(?:.*\.)?)layer3\.(?P<block>\d+)\..*")


@dataclass(frozen=True)
class _Origin:
    """A pattern of names that only files with, or without, a certain network have."""

    names: re.Pattern[str]
    network: str
    proves: bool


_ORIGINS = (
    _Origin(re.compile(r"(.*\.)?base_encoder\..*"), "vit_small_moco_v3", proves=True),
    # masked image modelling (MAE, SimMIM, iBOT), which MoCo v3 does not do
    _Origin(re.compile(r"(.*\.)?(decoder_.*|mask_token)"), "vit_small_moco_v3", proves=False),
)


@dataclass(frozen=True)
class Signature:
    """Names and shapes of a network's tensors.

    Attributes:
        shapes: of its state dict.
        parameters: names of those that are parameters.
        floating: names of those that hold floating-point numbers; others count or index.
    """

    shapes: dict[str, torch.Size]
    parameters: frozenset[str]
    floating: frozenset[str]


@functools.cache
def signature(architecture: str) -> Signature:
    """Return a network's tensor names and shapes without allocating memory.

    Raises:
        ValueError: unknown network.
    """
    with without_values():
        network = create_backbone(architecture)
    state = network.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    floating = frozenset(name for name, tensor in state.items() if tensor.is_floating_point())
    return Signature(shapes, frozenset(name for name, _ in network.named_parameters()), floating)


def candidates(containers: Containers) -> tuple[str, ...]:
    """Return the networks that a file from another project is compared with.

    Of the CIFAR ResNets these are the ones that are as deep as a third stage in the file.
    """
    blocks: dict[tuple[str, str], int] = {}
    for path, tensors in containers.items():
        for found in filter(None, map(_THIRD_STAGE.fullmatch, tensors)):
            place = path, found["prefix"]
            blocks[place] = max(blocks.get(place, 0), int(found["block"]) + 1)
    depths = {n for n in blocks.values() if n <= DEEPEST_CIFAR_BLOCKS}
    return (*sorted(map(cifar_resnet, depths)), *sorted(dict(BACKBONES)), *_COMMON)


@dataclass(frozen=True)
class Guess:
    """Networks that a file may contain.

    Attributes:
        complete: networks whose tensors all match, and where in the file.
        nearest: the network with the most matching tensors.
        match: match of the nearest network.
    """

    complete: dict[str, Match]
    nearest: str
    match: Match


def guess(containers: Containers, *, prefix: str | None = None) -> Guess:
    """Compare a file, or its tensors at `prefix` (see `match`), with every candidate.

    Networks whose files take a conversion come last: they are tried where no other is complete.
    """
    names = _names(containers)
    matches = {
        name: match(containers, signature(name).shapes, prefix=prefix)
        for name in candidates(containers)
    }
    nearest = max(matches, key=lambda name: _agreement(matches[name]))
    if not any(m.complete for m in matches.values()):
        names_of_today = of_today(containers)
        hub = hub_tensors(containers) if names_of_today else {}
        matches |= {
            name: find(containers, name, signature(name).shapes, prefix=prefix, hub=hub)
            for name in names_of_today
        }
        nearest = max(matches, key=lambda name: _agreement(matches[name]))
    complete = _largest({name: m for name, m in matches.items() if m.complete})
    for origin in _ORIGINS:
        if origin.network in complete and len(complete) > 1 and _any_is(origin, names):
            complete = {n: m for n, m in complete.items() if (n == origin.network) == origin.proves}
    if complete and nearest not in complete:
        nearest = next(iter(complete))
    return Guess(complete, nearest, matches[nearest])


def _largest(complete: dict[str, Match]) -> dict[str, Match]:
    """Leave out networks that are the first stages of another one found at the same place."""
    shapes = {name: signature(name).shapes.items() for name in complete}
    return {
        name: m
        for name, m in complete.items()
        if not any(m.place == o.place and shapes[name] < shapes[n] for n, o in complete.items())
    }


def contradiction(architecture: str, containers: Containers) -> str | None:
    """Return how a file's names contradict a network that fits its shapes; None if they do not."""
    names = _names(containers)
    for origin in _ORIGINS:
        evidence = _any_is(origin, names)
        if not evidence or (architecture == origin.network) == origin.proves:
            continue
        if signature(architecture).shapes == signature(origin.network).shapes:
            verb = "show" if origin.proves else "speak against"
            return f"its names ({printable(evidence)}) {verb} {origin.network}, whose tensors are alike"
    return None


def _names(containers: Containers) -> list[str]:
    return [name for tensors in containers.values() for name in tensors]


def _any_is(origin: _Origin, names: Iterable[str]) -> str | None:
    return next((name for name in names if origin.names.fullmatch(name)), None)


def _agreement(m: Match) -> float:
    """Matching tensors as a share of all tensors in the network or the file."""
    same = len(m.found) - len(m.mismatched)
    return same / (len(m.found) + len(m.missing) + len(m.extra))
