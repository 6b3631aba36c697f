"""Convolutions and linear layers on uint8 and int8 codes: oneDNN's, which torch contains.

The sum of products is an exact int32. It is multiplied by a float32 factor for each output channel, a
float32 bias is added, and the result may be rectified and turned into codes before it is written.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowbit.quant.integer.code_kernels import decoding, shift
from lowbit.quant.integer.integer_grid import ActivationGrid, WeightCodes

_LARGEST = 255 * 128  # product of two codes
_MOST_TERMS = (2**31 - 1) // _LARGEST


class UnsupportedLayerError(ValueError):
    """Raised for a layer that has no product of codes; the message is why."""


class _Place(NamedTuple):
    """How a convolution moves over its input."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


class Product:
    """A layer's weight as codes, packed at the first call, and what follows the layer.

    Args:
        layer: a convolution, padded by zeros, or a linear layer.
        codes: of its weight at the precision of this product.
        grid: of its input.

    Attributes:
        scale: of a sum of products, float64 (C,).
        bias: float64 (C,).
        rectify: whether negative outputs become zero.
        output: grid of the output; None for float32.

    Raises:
        UnsupportedLayerError: oneDNN has no such product, or its sums could overflow.
    """

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, codes: WeightCodes, grid: ActivationGrid
    ) -> None:
        if codes.codes[0].numel() > _MOST_TERMS:
            raise UnsupportedLayerError("its sums may overflow 32 bits")
        self.place = _place(layer) if isinstance(layer, nn.Conv2d) else None
        self.codes, self.grid = codes.codes, grid
        self.scale = codes.scale
        self.bias = torch.zeros_like(codes.scale)
        if layer.bias is not None:
            self.bias = layer.bias.detach().double()
        self.rectify, self.output = False, None
        # `codes.bits` would not do: two bit-widths may need equally many for their codes.
        self._layer, self._bits = layer, getattr(layer, "w_quant", codes).bits
        self._norms: tuple[nn.Module, ...] = ()
        self._packed: Tensor | None = None

    @property
    def facts(self) -> tuple:
        """All that the result depends on in a frozen network, beside the input."""
        layer = type(self), self._layer, self._bits, self.grid
        return *layer, self._norms, self.rectify, self.output

    def fold(self, norm: nn.BatchNorm2d) -> None:
        """Let the product be followed by a batch normalization in eval mode."""
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            gain = gain * norm.weight.detach().double()
        self.bias = (self.bias - norm.running_mean.double()) * gain
        if norm.bias is not None:
            self.bias = self.bias + norm.bias.detach().double()
        self.scale = self.scale * gain
        self._norms += (norm,)

    def __call__(self, codes: Tensor) -> Tensor:
        """Return the output for uint8 codes of the input, channels_last where it is an image."""
        step, zero = decoding(self.grid)
        if self._packed is None:
            self._pack(step, zero, codes)
        constants = step, zero, self._packed, self._scale, self._zeros, self._bias
        if self.place is None:
            return torch.ops.onednn.qlinear_pointwise(codes, *constants, *self._end)
        codes = codes.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv2d_pointwise(codes, *constants, *self.place, *self._end)

    def _pack(self, step: float, zero: int, codes: Tensor) -> None:
        self._scale, self._bias = self.scale.float(), self.bias.float()
        self._zeros = torch.zeros(len(self._scale), dtype=torch.int32)
        self._end = self._ending()
        if self.place is None:
            self._packed = torch.ops.onednn.qlinear_prepack(self.codes, None)
        else:
            constants = self.codes, self._scale, step, zero
            self._packed = torch.ops.onednn.qconv_prepack(
                *constants, *self.place, list(codes.shape)
            )
        self.codes = None

    def _ending(self) -> tuple:
        """Return scale, zero and type of the output, and what is computed before it is rounded."""
        grid = self.output
        if grid is None:
            return 1.0, 0, torch.float32, "relu" if self.rectify else "none", [], ""
        low, high = ((q - grid.zero_in) * grid.scale_in for q in (grid.low, grid.high))
        if self.rectify:
            low = min(max(low, 0.0), high)  # a grid may end below zero
        zero = grid.zero_in + shift(grid)
        return grid.scale_in, zero, torch.uint8, "hardtanh", [low, high], ""


def _place(layer: nn.Conv2d) -> _Place:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedLayerError(f"its padding is {layer.padding_mode} {layer.padding}")
    return _Place(list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)


@cache
def is_exact() -> bool:
    """Whether this machine's products of uint8 and int8 codes are exact.

    Processors without VNNI add two products in 16 bits, which saturates from 2 · 129 · 127 on.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    try:
        return all(_is_exact(*worst) for worst in ((255, 127), (255, -128)))
    except (
        AttributeError,
        RuntimeError,
    ):  # torch without oneDNN, or a processor it knows no way for
        return False


def _is_exact(code: int, weight: int) -> bool:
    grid = ActivationGrid(1.0, 0, 1.0, 0, 0, 255)
    expected = 64 * code * weight
    for layer in (nn.Conv2d(64, 32, 1), nn.Conv2d(64, 32, 3), nn.Linear(64, 32)):
        shape = layer.weight.shape
        codes = torch.full(shape, weight, dtype=torch.int8)
        scale = torch.ones(32, dtype=torch.float64)
        x = torch.full((4, 64, *shape[2:]), code, dtype=torch.uint8)
        if layer.weight.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        layer.bias = None
        found = Product(layer, WeightCodes(codes, scale, 8), grid)(x)
        if not (found == expected * shape[2:].numel()).all():
            return False
    return True
