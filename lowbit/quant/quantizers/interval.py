"""Interval quantizer of transition-rate scheduling."""

import torch
from torch import Tensor

from lowbit.quant.kernels.learned_scale_quantize import interval
from lowbit.quant.kernels.range_quantize import code_dtype
from lowbit.quant.quantizers.base import LinearCodes, TransitionPoints, register
from lowbit.quant.quantizers.learned import LearnedScale, interval_scale, moments


@register
class Interval(LearnedScale):
    """Quantizer of transition-rate scheduling (Eq. 13): fixed output interval, learned clip range.

    Signed (α, β, γ) = (-2^(b-1), 2^(b-1)-1, 2^(b-1)); unsigned (0, 2^b-1, 2^b), but (0, 1, 1) at one
    bit, whose weights are signs (`Sign`). The scale starts as in
    EWGS: 3 std for signed data, 3 std / sqrt(1 - 2/π) for activations, which are roughly half-normal.
    The output is in [-1, 1) or [0, 1) for any scale, so a normalization must follow, or a
    learned output scale.
    """

    rescales = True

    @property
    def gain(self) -> Tensor:
        return self.scale.detach()

    @property
    def latent_step(self) -> Tensor:
        return self.scale / self.constants()[2]

    def levels(self) -> tuple[int, int]:
        """Return the lowest and the highest code, (α, β)."""
        alpha, beta, _ = self.constants()
        return alpha, beta

    def constants(self) -> tuple[int, int, int]:
        """(α, β, γ) at the current bits."""
        half = 2 ** (self._bits - 1)
        if self.signed:
            return -half, half - 1, half
        return 0, 2 * half - 1, 1 if self._bits == 1 else 2 * half

    def _statistics(self, x: Tensor) -> Tensor:
        return moments(x, self.channels)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        return interval_scale(mean, signed=self.signed)

    def _quantize(self, x: Tensor) -> Tensor:
        return interval(x, self.scale, *self.constants())

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        alpha, beta, gamma = self.constants()
        q = (x * (gamma / self.scale)).clamp_(alpha, beta).round_()
        return q.to(code_dtype(alpha, beta))

    def linear_codes(self) -> LinearCodes | None:
        return LinearCodes(*self.constants()) if self.channels is None else None

    def transition_points(self, weight: Tensor) -> TransitionPoints:
        alpha, beta, gamma = self.constants()
        return TransitionPoints(weight * (gamma / self.scale), alpha + 0.5, beta - 0.5)

    def grid(self, x: Tensor) -> tuple[Tensor, float]:
        return torch.full((1,), 1 / self.constants()[2], device=x.device), 0.0
