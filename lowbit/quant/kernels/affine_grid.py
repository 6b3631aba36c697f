"""Grids of even levels whose codes do not depend on the machine."""

from typing import NamedTuple

import torch
from torch import Tensor


class AffineGrid(NamedTuple):
    """Levels (q - z) s, with codes q = round(v / span · count) + z, half to even.

    `span` is the part of the data's range that `count` steps cover, taken before any rounding. A range is
    taken from the data, so data lie exactly on its ends, and where an end is a tie between two codes
    (symmetric weights: max|w| / s = n/2) the quotient decides. v / s does not give n/2 there, because s
    is rounded: it gives a little more or less, as the type and the magnitude have it. v / span is exactly
    ±1 or ±1/2, and the product exactly the tie, in every type, on every machine.

    Attributes:
        s: step, span / count; one element, or one per channel, broadcastable against `v`.
        span: shaped like `s`.
        count: steps in the span, a multiple of 1/2.
        z: zero-point, whole numbers shaped like `s`; None for 0.
    """

    s: Tensor
    span: Tensor
    count: float = 1.0
    z: Tensor | None = None

    def ratio(self, v: Tensor) -> Tensor:
        """Return v / span · count as a new tensor; both operations are rounded to nearest."""
        return ratio(v, self.span, self.count)


def ratio(v: Tensor, span: Tensor, count: Tensor | float) -> Tensor:
    """`AffineGrid.ratio`, of tensors."""
    if torch.compiler.is_compiling():
        # On a GPU the compiler's `/` may be two units off (div.full), but its addcdiv is rounded.
        quotient = torch.addcdiv(v.new_zeros(()), v, span)
    else:
        quotient = v / span
    return quotient if isinstance(count, float) and count == 1 else quotient.mul_(count)


def symmetric_grid(peak: Tensor, count: float) -> AffineGrid:
    """Return the grid of weights with magnitudes up to `peak` = count · s; s is 1 for zeros."""
    span = torch.where(peak == 0, count, peak)
    return AffineGrid(span / count, span, count)
