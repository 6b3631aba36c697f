"""Compute cost of a pretraining recipe, found by counting the embeddings in one pairing step."""

from contextlib import nullcontext
from functools import cache

import torch

from lowbit.backbones import create_backbone
from lowbit.backbones.counting import network_size
from lowbit.common.compute_cost import LEARNING, Work
from lowbit.data import image_set, locate
from lowbit.pretrain.frameworks import create_framework
from lowbit.pretrain.frameworks.momentum import MomentumFramework
from lowbit.pretrain.pairings import get_pairing
from lowbit.pretrain.recipe import Recipe

_BYTES = 4  # of a number
_STATE = 3  # copies of the network in a resumable state: weights, momentum, gradients or target


class _Walk:
    """Stand-in for a `Step` that records which embeddings learn and which are only targets."""

    def __init__(self, *, symmetric: bool) -> None:
        self._symmetric = symmetric
        self._made = 0
        self.learning: set = set()
        self.targets: set = set()

    def views(self) -> tuple[int, int]:
        return self.image(), self.image()

    def image(self) -> int:
        self._made += 1
        return self._made

    draw_independent = draw_shared = image

    def observing(self) -> nullcontext:
        return nullcontext()

    def embed(self, view: int, precision: object) -> tuple:
        return view, precision

    def compare(self, *ways: tuple) -> None:
        for online, target in ways if self._symmetric else ways[:1]:
            self.learning.add(online)
            self.targets.add(target)

    def both_ways(self, a: tuple, b: tuple) -> None:
        self.compare((a, b), (b, a))


def passes(framework: str, pairing: str) -> int:
    """Return how many forward passes of the backbone a step costs for each image.

    An embedding that learns costs `LEARNING` passes. A target is a pass of the momentum encoder
    if there is one; otherwise it costs nothing extra if it also learns.

    Example:
        >>> passes("simsiam", "plain"), passes("simsiam", "ssql"), passes("byol", "plain")
        (6, 12, 8)
    """
    symmetric, momentum = _kind(framework)
    walk = _Walk(symmetric=symmetric)
    for _ in get_pairing(pairing).terms(walk):
        pass
    watched = walk.targets if momentum else walk.targets - walk.learning
    return LEARNING * len(walk.learning) + len(watched)


def work(recipe: Recipe) -> Work:
    """Count the work of a recipe.

    Raises:
        FileNotFoundError: the images are the user's and are missing, so they cannot be counted.
        ValueError: the network does not accept images of this size.
    """
    size = network_size(recipe.architecture, recipe.image_size)
    weights = _BYTES * size.parameters
    counts = _counts(recipe)
    images = counts["train"] + (counts["val"] if recipe.split == "trainval" else 0)
    seen = recipe.epochs * (images // recipe.batch_size) * recipe.batch_size
    return Work(
        operations=seen * passes(recipe.framework, recipe.pairing) * size.operations,
        disk=weights * (1 + (_STATE * recipe.keep_checkpoints if recipe.epochs else 0)),
    )


@cache
def _kind(name: str) -> tuple[bool, bool]:
    """Return whether both views of a framework predict, and whether it has a momentum encoder."""
    with torch.device("meta"):
        framework = create_framework(name, create_backbone("resnet10_slim"))
    return framework.symmetric, isinstance(framework, MomentumFramework)


def _counts(recipe: Recipe) -> dict[str, int]:
    """Return the images of each split: as published, or found in the user's folder."""
    published = image_set(recipe.dataset).counts
    return published or locate(recipe.dataset, root=recipe.data_root).counts
