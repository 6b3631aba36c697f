"""Device and random generators of torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means here; "auto" is cuda where there is one, else cpu.

    Raises:
        ValueError: torch cannot use it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # how torch says "no such device"
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
        torch.manual_seed(seed)
        yield
