"""Integer grids of a network's quantizers, as integer kernels want them.

A kernel computes (q - zero) * scale with q in 8 bits. Whether a quantizer is of that kind is found by
asking it for codes, so that one of a user's own needs nothing more than the contract of `Quantizer`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.quant.layers import WeightQuantized
from lowbit.quant.quantizers.base import Quantizer

MOST_BITS = 8
# Places between two codes at which a quantizer is asked, away from the ties, whose rounding may differ.
_PLACES = (-0.49, -0.25, 0.0, 0.25, 0.49)
_BEYOND = 3  # steps outside the range at which codes must not move
_WHOLE = 1e-3  # how far from a whole number a zero point may be; float32 ranges give 1e-5


class NotAnIntegerGridError(ValueError):
    """Raised when a quantizer has no grid that an integer kernel can use; the message is why."""


@dataclass(frozen=True)
class ActivationGrid:
    """Codes of an activation, and the values that they stand for.

    q = clip(round(x / scale_in) + zero_in, low, high), and its value is (q - zero) * scale. The two scales
    differ where a quantizer's output has a range of its own (`Quantizer.rescales`).
    """

    scale_in: float
    zero_in: int
    scale: float
    zero: int
    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether the codes are int8, else uint8."""
        return self.low < 0


@dataclass(frozen=True)
class WeightCodes:
    """Codes of a weight, int8 and of its shape; the value of q is q * scale.

    Attributes:
        codes: int8, on the CPU.
        scale: of each index of dimension 0, float64 (C,), on the CPU.
        bits: of the narrowest signed integer that holds the codes, 2 to 8.
    """

    codes: Tensor
    scale: Tensor
    bits: int


@torch.no_grad()
def activation_grid(quantizer: Quantizer) -> ActivationGrid:
    """Return the grid of an activation quantizer at its current bits.

    Raises:
        NotAnIntegerGridError: its output is not one fixed grid of at most 256 levels.
    """
    _require_few_bits(quantizer)
    levels = quantizer.levels()
    if levels is None:
        raise NotAnIntegerGridError("its codes have no stated range")
    low, high = levels
    if reads_batches(quantizer):
        raise NotAnIntegerGridError("its range is taken from each batch")
    step, offset = (_number(x) for x in quantizer.grid(torch.zeros(1)))
    if not (math.isfinite(step) and math.isfinite(offset)):
        raise NotAnIntegerGridError(f"its grid has step {step} and offset {offset}")
    # A step apart: in the units of the grid, numbers much closer would be one.
    points = quantizer.transition_points(torch.tensor([0.0, step], dtype=torch.float64))
    if points is None or abs(points.last - points.first - (high - low - 1)) > _WHOLE:
        raise NotAnIntegerGridError("its codes are not neighbouring whole numbers")
    start, end = points.weights.flatten().tolist()
    if start == end:
        raise NotAnIntegerGridError("its step is too large for its offset")
    grid = ActivationGrid(
        scale_in=step / (end - start),
        zero_in=_whole(start + low + 0.5 - points.first),
        scale=step,
        zero=_whole(-offset / step),
        low=low,
        high=high,
    )
    smallest, largest = (-128, 127) if grid.signed else (0, 255)
    if not all(smallest <= q <= largest for q in (low, high, grid.zero_in, grid.zero)):
        raise NotAnIntegerGridError(
            f"its codes {low} to {high} with zero at {grid.zero_in} do not fit "
            f"{'int8' if grid.signed else 'uint8'}"
        )
    _require_rounding(quantizer, grid)
    return grid


@torch.no_grad()
def reads_batches(quantizer: Quantizer) -> bool:
    """Whether the grid of an activation quantizer depends, or may depend, on the batch that it quantizes."""
    try:
        grids = [[_number(x) for x in quantizer.grid(x)] for x in (torch.zeros(1), torch.ones(2))]
    except (AttributeError, NotImplementedError):  # a range that is stored nowhere, or not told
        return True
    return not torch.equal(*map(torch.tensor, grids)) and not math.isnan(sum(map(sum, grids)))


def _require_rounding(quantizer: Quantizer, grid: ActivationGrid) -> None:
    """Refuse a quantizer whose codes are not those of rounding to the nearest level, with clipping."""
    whole = torch.arange(grid.low - _BEYOND, grid.high + _BEYOND + 1, dtype=torch.float64)
    places = (whole[:, None] + torch.tensor(_PLACES, dtype=torch.float64)).flatten()
    x = ((places - grid.zero_in) * grid.scale_in).float()
    expected = places.round().clamp(grid.low, grid.high).long()
    if not torch.equal(quantizer.codes(x).long(), expected):
        raise NotAnIntegerGridError("its codes are not those of rounding and clipping to one grid")


def _whole(value: float) -> int:
    if abs(value - round(value)) > _WHOLE:
        raise NotAnIntegerGridError("its offset is no whole number of steps")
    return round(value)


@torch.no_grad()
def weight_codes(layer: WeightQuantized) -> WeightCodes:
    """Return the codes of a layer's weight at the current bits, an output scale multiplied in.

    Levels halfway between whole numbers (DoReFa's) are written in half steps.

    Raises:
        NotAnIntegerGridError: they are no multiples of a step that fit int8.
    """
    quantizer, weight = layer.w_quant, layer.weight.detach()
    _require_few_bits(quantizer)
    codes = quantizer.codes(weight).int()
    step, offset = (torch.as_tensor(x, dtype=torch.float64) for x in quantizer.grid(weight))
    shift = offset / step  # values are (codes + shift) * step
    for parts in (1, 2):
        if ((parts * shift) - (parts * shift).round()).abs().max() <= _WHOLE:
            whole = codes.mul_(parts).add_((parts * shift).round().int())
            break
    else:
        raise NotAnIntegerGridError("its levels are no whole or half multiples of its step")
    low, high = int(whole.min()), int(whole.max())
    if low < -128 or high > 127:
        raise NotAnIntegerGridError(f"its levels {low} to {high} do not fit int8")
    scale = (step / parts).expand(len(weight), *[1] * (weight.dim() - 1)).flatten()
    if layer.out_scale is not None:
        factor = layer.out_scale(torch.ones(len(weight), *[1] * (weight.dim() - 1)).to(weight))
        scale = scale * factor.detach().double().flatten()
    return WeightCodes(whole.to(torch.int8).cpu(), scale.cpu(), _signed_bits(low, high))


def _signed_bits(low: int, high: int) -> int:
    return max(2, (-low - 1).bit_length() + 1 if low < 0 else 0, high.bit_length() + 1)


def _require_few_bits(quantizer: Quantizer) -> None:
    if quantizer.bits > MOST_BITS:
        raise NotAnIntegerGridError(
            f"it has {quantizer.bits} bits, and integer kernels {MOST_BITS}"
        )


def _number(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).item())
