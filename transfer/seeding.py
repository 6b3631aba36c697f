"""Independent random streams from one seed."""

import hashlib

import torch


def stream(seed: int, name: str, *, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of a named stream.

    Streams with different names are unrelated, so that drawing more from one (an option that needs
    a random view) changes no number drawn from another.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, name)) for name in ("order", "views"))
        >>> bool(a == b)
        False
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8]) >> 1)


def minibatches(
    n: int,
    batch_size: int,
    generator: torch.Generator,
    *,
    device: torch.device | str = "cpu",
) -> list[torch.Tensor]:
    """Return one epoch's minibatches as tensors of indices on `device`, in an order drawn anew.

    The last one holds what is left over; a single left-over image joins the batch before it, since
    batch normalization can make nothing of one image.

    Example:
        >>> [len(batch) for batch in minibatches(9, 4, stream(0, "order"))]
        [4, 5]
    """
    batches = list(torch.randperm(n, generator=generator).to(device).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def num_minibatches(n: int, batch_size: int) -> int:
    """Return how many minibatches an epoch has.

    Example:
        >>> [num_minibatches(n, 4) for n in (1, 4, 5, 6, 9)]
        [1, 1, 1, 2, 2]
    """
    whole, left = divmod(n, batch_size)
    return max(whole + (left > 1), 1)
