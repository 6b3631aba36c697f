"""Learned step size quantization."""

import math

import torch
from torch import Tensor

from quant.precision import OFF
from quant.primitives import code_dtype, lsq
from quant.quantizers.base import register
from quant.quantizers.learned import LearnedScale


@register
class LSQ(LearnedScale):
    """Learned step size quantization (Esser et al. 2020).

    Signed: Q_N = 2^(b-1), Q_P = 2^(b-1)-1; unsigned: Q_N = 0, Q_P = 2^b-1. The step starts at
    2 mean|v| / sqrt(Q_P); when the bit-width changes it is rescaled by the same rule, so that the mean
    magnitude it was fitted to is kept. Its gradient is scaled by 1/sqrt(N Q_P), where N is the number
    of weights of a scale, or of features of one sample of an activation.
    """

    _reference_bits = 0  # bits that q_scale is the step of

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        self._bits = bits
        if bits < OFF and self.initialized and bits != self._reference_bits:
            ratio = math.sqrt(self._q_p(self._reference_bits) / self._q_p(bits))
            with torch.no_grad():
                self.q_scale.mul_(ratio)
            self._mark_initialized()

    def _q_p(self, bits: int) -> int:
        return max(2 ** (bits - 1) - 1, 1) if self.signed else 2**bits - 1

    def levels(self) -> tuple[int, int]:
        """Lowest and highest code, (-Q_N, Q_P)."""
        return (-(2 ** (self._bits - 1)) if self.signed else 0), self._q_p(self._bits)

    def _statistics(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1 if self.channels else None).unsqueeze(0)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        bits = self._bits if self._bits < OFF else 8  # off for now: kept as an 8-bit step
        return 2 * mean[0] / math.sqrt(self._q_p(bits))

    def _mark_initialized(self, reference_bits: int = 0) -> None:
        self._reference_bits = reference_bits or (self._bits if self._bits < OFF else 8)
        super()._mark_initialized(self._reference_bits)

    def _restore(self, reference_bits: int) -> None:
        self._reference_bits = reference_bits
        self.bits = self._bits  # rescales where this model stands at other bits than the file

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        n = x.numel() // (len(x) if self.role == "activation" else self.channels or 1)
        return lsq(x, self.scale, -lo, hi, 1 / math.sqrt(n * hi))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        return (x / self.scale).clamp_(lo, hi).round_().to(code_dtype(lo, hi))
