"""The order of the training images, and each iteration's randomness, as pure functions.

What a training draws depends on (seed, position) alone, so a killed run that goes on at iteration t
sees what the straight run saw: there is no sampler or generator state to store, or to forget.
"""

import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Sampler


class IndexStream:
    """An endless stream of image indices: one random permutation after another.

    Example:
        >>> stream = IndexStream(3, seed=0)
        >>> sorted(stream[position] for position in range(3, 6))
        [0, 1, 2]
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size, self.seed = size, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        return torch.randperm(self.size, generator=generator).tolist()

    def __getitem__(self, position: int) -> int:
        return self._permutation(position // self.size)[position % self.size]


class ResumableSampler(Sampler):
    """Sample an `IndexStream` from a position on, every `world`-th index for each of the ranks."""

    def __init__(
        self, size: int, *, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.stream = IndexStream(size, seed=seed)
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[int]:
        position = self.start + self.rank
        while True:
            yield self.stream[position]
            position += self.world


def seed_everything(seed: int, iteration: int) -> None:
    """Seed torch's, numpy's and Python's global generators as a function of (seed, iteration)."""
    value = seed_of(seed, iteration)
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def seed_of(seed: int, index: int) -> int:
    """Return a 32-bit seed for draw number `index` of a run: well-mixed, so neighbours differ."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
