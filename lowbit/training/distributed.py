"""Data-parallel training: several processes, each with its share of every batch.

Gradients are averaged by one collective over one flat tensor a step, after all of its backward
passes. DistributedDataParallel would average wrongly here: an encoder runs two to four times a
step, and weights quantized once serve several passes in one backward. This gives up the overlap of
communication with the backward pass, but is correct for every pairing and framework.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowbit.common.input_files.environment import launcher_number

TIMEOUT = timedelta(minutes=30)  # of a collective: rank 0 may be saving or reading images


def size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process' rank; only rank 0 writes files."""
    return dist.get_rank() if size() > 1 else 0


def launched() -> bool:
    """Whether a launcher (torchrun) started this process as one of several."""
    return launcher_number("WORLD_SIZE", 1) > 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group described by the launcher's variables; do nothing without a launcher.

    CPU tensors use gloo and GPU tensors NCCL.
    """
    if not launched():
        yield
        return
    local = launcher_number("LOCAL_RANK", 0)
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Return this process' device of that kind."""
    if size() == 1 and not launched():
        return device
    if device.type != "cuda" or device.index is not None:
        return device
    index, count = launcher_number("LOCAL_RANK", 0), torch.cuda.device_count()
    if index >= count:
        raise ValueError(
            f"process {index} of this machine has no GPU: there are {count}; nothing was trained. "
            "Start one process per GPU, or set device to cpu."
        )
    return torch.device("cuda", index)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one collective."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat.div_(size())
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(
        gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
    )


def mean(value: Tensor) -> Tensor:
    """Return the mean over the processes."""
    if size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value.div_(size())


def broadcast(module: nn.Module) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if size() > 1:
        for tensor in module.state_dict().values():
            if isinstance(tensor, Tensor):
                dist.broadcast(tensor, 0)


def gather(value: Any) -> list[Any]:
    """Return the value of every process, in the order of ranks."""
    values = [value] * size()
    if size() > 1:
        dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if size() > 1:
        gather(None)


def host_group() -> dist.ProcessGroup | None:
    """Return a group whose collectives accept CPU tensors; None if the default group does."""
    if size() == 1 or "gloo" in str(dist.get_backend_config()):
        return None
    return dist.new_group(backend="gloo")
