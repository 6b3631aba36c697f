"""uint8 codes of float32 tensors on a CPU, as kernels in C: one pass over memory each."""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.quant.integer.integer_grid import ActivationGrid
from lowbit.quant.kernels import torch_compiled
from lowbit.quant.kernels.c_kernels import address, library, threads

_POINTER, _NUMBER, _LENGTH = ctypes.c_void_p, ctypes.c_float, (ctypes.c_int64, ctypes.c_int)
_ARGUMENTS = {
    "encode": (_POINTER, _POINTER, *_LENGTH, *[_NUMBER] * 4),
    "decode": (_POINTER, _POINTER, *_LENGTH, *[_NUMBER] * 2),
    "add_codes": (*[_POINTER] * 4, *_LENGTH, *[_NUMBER] * 7),
}


def is_available() -> bool:
    """Whether there are these kernels and they are not turned off (`use_fused_kernels`)."""
    return torch_compiled.is_enabled() and library() is not None


def _run(kernel: str, tensors: Sequence[Tensor | None], numbers: Sequence[float]) -> None:
    """Call a kernel on tensors of as many elements as the first has."""
    n = tensors[0].numel()
    function = getattr(library(), kernel)
    function.argtypes, function.restype = _ARGUMENTS[kernel], None
    function(*map(address, tensors), n, threads(n), *numbers)


def shift(grid: ActivationGrid) -> int:
    """Return what is added to a grid's codes so that they fit uint8."""
    return 128 if grid.signed else 0


def _encoding(grid: ActivationGrid) -> tuple[float, int, int, int]:
    """Return step, zero, lowest and highest code of the uint8 codes of inputs."""
    up = shift(grid)
    return grid.scale_in, grid.zero_in + up, grid.low + up, grid.high + up


def decoding(grid: ActivationGrid) -> tuple[float, int]:
    """Return scale and zero of uint8 codes q, whose values are (q - zero) scale."""
    return grid.scale, grid.zero + shift(grid)


def encode(x: Tensor, grid: ActivationGrid) -> Tensor:
    """Return clip(round(x/scale_in) + zero_in, low, high), shifted to uint8, in the layout of `x`."""
    x = _dense(x.float())
    out = torch.empty_like(x, dtype=torch.uint8)
    _run("encode", (x, out), _encoding(grid))
    return out


def decode(codes: Tensor, grid: ActivationGrid) -> Tensor:
    """Return the values of uint8 codes as float32, in their layout."""
    codes = _dense(codes)
    out = torch.empty_like(codes, dtype=torch.float32)
    _run("decode", (codes, out), decoding(grid))
    return out


def add(
    x: Tensor,
    other: Tensor,
    other_grid: ActivationGrid | None,
    *,
    rectify: bool,
    grid: ActivationGrid | None,
) -> Tensor:
    """Return x + other, of one shape, rectified if so asked, as float32 or as codes of `grid`.

    The memory of `x` is used up.

    Args:
        x: float32.
        other: float32, or uint8 codes of `other_grid`.
        other_grid: None for float32.
        rectify: return max(x + other, 0).
        grid: None for float32.
    """
    x = _dense(x)
    other = other.float() if other_grid is None else other
    if other.stride() != x.stride():
        other = torch.empty_like(x, dtype=other.dtype).copy_(other)
    out = None if grid is None else torch.empty_like(x, dtype=torch.uint8)
    floats, codes = (other, None) if other_grid is None else (None, other)
    before = (1.0, 0) if other_grid is None else decoding(other_grid)
    after = (1.0, 0, 0, 0) if grid is None else _encoding(grid)
    least = 0.0 if rectify else -math.inf
    _run("add_codes", (x, floats, codes, out), (*before, least, *after))
    return x if out is None else out


def _dense(x: Tensor) -> Tensor:
    """Return a tensor without gaps in memory, copied if it has some."""
    return x if torch_compiled.is_dense(x) else x.contiguous()
