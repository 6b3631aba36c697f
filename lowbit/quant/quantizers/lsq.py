"""Learned step size quantization."""

import math

import torch
from torch import Tensor, nn

from lowbit.quant.kernels.learned_clip_quantize import lsq_plus
from lowbit.quant.kernels.range_quantize import code_dtype, lsq
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import LinearCodes, register
from lowbit.quant.quantizers.learned import LearnedScale, deviation, moments


@register
class LSQ(LearnedScale):
    """Learned step size quantization (Esser et al. 2020).

    Signed: Q_N = 2^(b-1), Q_P = 2^(b-1)-1; unsigned: Q_N = 0, Q_P = 2^b-1. The step starts at
    2 mean|v| / sqrt(Q_P); when the bit-width changes it is rescaled by the same rule, so that the mean
    magnitude it implies is kept. Its gradient is scaled by 1/sqrt(N Q_P), where N is the number
    of weights per scale, or of features per sample of an activation.
    """

    _reference_bits = 0  # bit-width that q_scale belongs to

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

    def levels(self) -> tuple[int, int]:
        """Return the lowest and the highest code, (-Q_N, Q_P)."""
        half = 2 ** (self._bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def _q_p(self, bits: int) -> int:
        """Q_P where it divides: one signed bit has the codes -1 and 0, so Q_P = 0."""
        return max(2 ** (bits - 1) - 1, 1) if self.signed else 2**bits - 1

    def _statistics(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1 if self.channels else None).unsqueeze(0)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        bits = self._bits if self._bits < OFF else 8  # currently off: stored as an 8-bit step
        return 2 * mean[0] / math.sqrt(self._q_p(bits))

    def _mark_initialized(self, reference_bits: int = 0) -> None:
        self._reference_bits = reference_bits or (self._bits if self._bits < OFF else 8)
        super()._mark_initialized(self._reference_bits)

    def _restore(self, reference_bits: int) -> None:
        self._reference_bits = reference_bits
        self.bits = self._bits  # rescales if this model's bits differ from the file's

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        n = x.numel() // (len(x) if self.role == "activation" else self.channels or 1)
        return lsq(x, self.scale, -lo, hi, 1 / math.sqrt(n * self._q_p(self._bits)))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        return (x * (1 / self.scale)).clamp_(lo, hi).round_().to(code_dtype(lo, hi))

    def linear_codes(self) -> LinearCodes | None:
        return LinearCodes(*self.levels()) if self.channels is None else None


@register
class LSQPlus(LearnedScale):
    """LSQ+ (Bhalgat et al. 2020): activations with a learned offset, weights from μ and σ.

    Activations have codes 0..2^b-1 over [β, β + s(2^b-1)], starting at the observed range,
    so that a signed activation (a linear bottleneck, SiLU) wastes no level. Weights are symmetric,
    s = max(|μ-3σ|, |μ+3σ|) / 2^(b-1), and have no offset.

    `q_scale` holds the full range, which is independent of the bit-width; `q_offset` is β.
    """

    def __init__(self, **place) -> None:
        super().__init__(**place)
        self.has_offset = self.role == "activation"
        if self.has_offset:
            self.q_offset = nn.Parameter(torch.zeros(1), requires_grad=self.q_scale.requires_grad)

    def levels(self) -> tuple[int, int]:
        half = 2 ** (self._bits - 1)
        return (0, 2 * half - 1) if self.has_offset else (-half, half - 1)

    @property
    def scale(self) -> Tensor:
        steps = 2**self._bits - 1 if self.has_offset else 2 ** (self._bits - 1)
        return super().scale / steps

    def _statistics(self, x: Tensor) -> Tensor:
        return moments(x, self.channels)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        if self.has_offset:
            self.q_offset.copy_(self._low)
            return self._high - self._low
        mu, sigma = mean[0], deviation(mean)
        return torch.maximum((mu - 3 * sigma).abs(), (mu + 3 * sigma).abs())

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        if self.has_offset:
            g = 1 / math.sqrt(x.numel() // len(x) * hi)
            return lsq_plus(x, self.scale, self.q_offset, hi, g)
        g = 1 / math.sqrt(x.numel() // (self.channels or 1) * max(hi, 1))
        return lsq(x, self.scale, -lo, hi, g)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        ratio = (x - self.q_offset) / self.scale if self.has_offset else x * (1 / self.scale)
        return ratio.clamp_(lo, hi).round_().to(code_dtype(lo, hi))

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        return self.scale, self.q_offset if self.has_offset else 0.0
