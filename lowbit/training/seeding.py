"""Device of a training, and random streams derived from one seed.

A named stream is a generator whose state is part of the training's. Draws that depend on (seed,
position) alone, as in `IndexStream` and `seed_everything`, need no stored state.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Sampler


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is cuda if available, else cpu.

    Raises:
        ValueError: torch cannot use it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's errors for a missing device
        raise ValueError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); nothing was run. "
            "Set device to auto, cpu or cuda."
        ) from error
    return device


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators within the block, and restore them after.

    Initialization draws from them, and so do dropout and tensors that a partial checkpoint leaves.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_torch(seed)
        yield


def global_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's global CPU generator and of a GPU's if one is used."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_global_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `global_states` returned; states of an unavailable device are ignored."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def named_seed(seed: int, name: str) -> int:
    """Return the 63-bit seed of a named stream."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def stream(seed: int, name: str, *, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of a named stream.

    Streams with different names are independent: drawing more from one (an option that needs
    a random view) does not change the others.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, name)) for name in ("order", "views"))
        >>> bool(a == b)
        False
    """
    return torch.Generator(device).manual_seed(named_seed(seed, name))


def minibatches(
    n: int,
    batch_size: int,
    generator: torch.Generator,
    *,
    device: torch.device | str = "cpu",
) -> list[torch.Tensor]:
    """Return one epoch's minibatches as tensors of indices on `device`, in a new random order.

    The last one holds the remainder; a single leftover image joins the previous batch, since
    batch normalization needs more than one image.

    Example:
        >>> [len(batch) for batch in minibatches(9, 4, stream(0, "order"))]
        [4, 5]
    """
    batches = list(torch.randperm(n, generator=generator).to(device).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def num_minibatches(n: int, batch_size: int) -> int:
    """Return the number of minibatches per epoch.

    Example:
        >>> [num_minibatches(n, 4) for n in (1, 4, 5, 6, 9)]
        [1, 1, 1, 2, 2]
    """
    whole, left = divmod(n, batch_size)
    return max(whole + (left > 1), 1)


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
    """Sample an `IndexStream` from a position on, taking every `world`-th index on each rank."""

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


def seed_torch(seed: int) -> None:
    """Seed torch's global generators: the CPU's, and those of accelerators where there are any.

    Without one, `torch.manual_seed` would format the call stack for each kind, in case it appears: a
    millisecond in each iteration.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def seed_everything(seed: int, iteration: int) -> None:
    """Seed torch's, numpy's and Python's global generators as a function of (seed, iteration)."""
    value = seed_of(seed, iteration)
    seed_torch(value)
    np.random.seed(value)
    random.seed(value)


def seed_of(seed: int, index: int) -> int:
    """Return a 32-bit seed for draw number `index` of a run: well-mixed, so neighbours differ."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
