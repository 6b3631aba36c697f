"""The quantizer of transition-rate scheduling."""

import math

import torch
from torch import Tensor

from quant.primitives import code_dtype, interval
from quant.quantizers.base import register
from quant.quantizers.learned import LearnedScale


@register
class Interval(LearnedScale):
    """Quantizer of transition-rate scheduling (Eq. 13): fixed output interval, learned clip range.

    Signed (α, β, γ) = (-2^(b-1), 2^(b-1)-1, 2^(b-1)); unsigned (0, 2^b-1, 2^b). The scale starts as in
    EWGS: 3 std for signed data, 3 std / sqrt(1 - 2/π) for the half-normal an activation resembles.
    The output lies in [-1, 1) or [0, 1) whatever the scale, so a normalization must follow.
    """

    def levels(self) -> tuple[int, int]:
        """Lowest and highest code, (α, β)."""
        alpha, beta, _ = self._constants()
        return alpha, beta

    def _constants(self) -> tuple[int, int, int]:
        half = 2 ** (self._bits - 1)
        return (-half, half - 1, half) if self.signed else (0, 2 * half - 1, 2 * half)

    def _statistics(self, x: Tensor) -> Tensor:
        dim = -1 if self.channels else None
        return torch.stack([x.sum(dim), x.square().sum(dim)])

    def _initial_scale(self, mean: Tensor) -> Tensor:
        std = (mean[1] - mean[0].square()).clamp_(min=0).sqrt_()
        return 3 * std if self.signed else 3 * std / math.sqrt(1 - 2 / math.pi)

    def _quantize(self, x: Tensor) -> Tensor:
        return interval(x, self.scale, *self._constants())

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        alpha, beta, gamma = self._constants()
        q = (x * (gamma / self.scale)).clamp_(alpha, beta).round_()
        return q.to(code_dtype(alpha, beta))
