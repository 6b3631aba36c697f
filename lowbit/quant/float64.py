"""Run networks in float64, to see what the rounding of float32 does to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


@contextmanager
def in_float64(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules compute in float64 within the block, from float32 inputs to float32 outputs.

    Weights, ranges and scales keep their float32 values. Codes are computed again: what lies close to a
    tie between two of them may fall to the other side, as it would on another machine.
    """
    tensors = {t for network in networks for t in (*network.parameters(), *network.buffers())}
    kept = [(t, t.data) for t in tensors if t.dtype == torch.float32]
    hooks = []
    try:
        for t, data in kept:
            t.data = data.double()
        for network in set(networks):
            hooks.append(network.register_forward_pre_hook(_widen))
            hooks.append(network.register_forward_hook(_narrow))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for t, data in kept:
            t.data = data


def _widen(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, given)


def _narrow(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
    return tree_map_only(Tensor, lambda x: x.float() if x.is_floating_point() else x, output)
