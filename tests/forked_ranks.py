"""Processes that form a group, forked from the test's, so that nothing is imported twice."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from lowbit.training import distributed

# Autograd starts threads for the devices that it knows at its first pass, and then forbids forks.
# torch's compiler makes one known: let a first pass come before any test.
torch.zeros(1, requires_grad=True).sum().backward()


def in_processes(function: Callable, *args: Any, folder: Path, size: int = 2) -> list:
    """Call `function(*args)` in `size` processes that form a group; return what each returned."""
    return launch(_in_group, function, *args, folder=folder, size=size)


def launch(function: Callable, *args: Any, folder: Path, size: int = 2) -> list:
    """Call `function(*args)` in `size` processes with torchrun's variables; return their values.

    Autograd forbids a fork once it has threads of a device, so with CUDA they are spawned.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    results = folder / f"ranks_{port}"
    method = "spawn" if torch.cuda.is_available() else "fork"
    options = (size, port, function, args, str(results))
    mp.start_processes(_process, args=options, nprocs=size, start_method=method)
    return [torch.load(f"{results}.{rank}", weights_only=False) for rank in range(size)]


def _process(rank, size, port, function, args, results):
    torch.set_num_threads(1)
    for name in ("RANK", "LOCAL_RANK"):
        os.environ[name] = str(rank)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ[name] = str(size)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(function(*args), f"{results}.{rank}")


def _in_group(function, *args):
    with distributed.process_group():
        return function(*args)
