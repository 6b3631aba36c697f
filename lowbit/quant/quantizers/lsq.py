"""Learned step size quantization."""

import math

import torch
from torch import Tensor, nn

from lowbit.quant.kernels.learned_clip_quantize import lsq_plus
from lowbit.quant.kernels.learned_scale_quantize import lsq
from lowbit.quant.kernels.range_quantize import code_dtype
from lowbit.quant.precision import MAX_BITS
from lowbit.quant.quantizers.base import LinearCodes, register
from lowbit.quant.quantizers.learned import LearnedStep, deviation, moments
from lowbit.quant.quantizers.observers import Observer, offset_ranges


@register
class LSQ(LearnedStep):
    """Learned step size quantization (Esser et al. 2020).

    Signed: Q_N = 2^(b-1), Q_P = 2^(b-1)-1; unsigned: Q_N = 0, Q_P = 2^b-1. The step starts at
    2 mean|v| / sqrt(Q_P) and follows the bit-width by the same rule, which keeps the mean magnitude it
    implies. Its gradient is scaled by 1/sqrt(N Q_P), where N is the number of weights per scale, or of
    features per sample of an activation.
    """

    def levels(self) -> tuple[int, int]:
        """Return the lowest and the highest code, (-Q_N, Q_P)."""
        half = 2 ** (self._bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def _q_p(self, bits: int) -> int:
        """Q_P where it divides: one signed bit has the codes -1 and 0, so Q_P = 0."""
        return max(2 ** (bits - 1) - 1, 1) if self.signed else 2**bits - 1

    def _statistics(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1 if self.channels else None).unsqueeze(0)

    def _initial_step(self, mean: Tensor) -> Tensor:
        return 2 * mean[0] / math.sqrt(self._q_p(self._reference))

    def _step_ratio(self, bits: int, reference: int) -> float:
        return math.sqrt(self._q_p(reference) / self._q_p(bits))

    @property
    def latent_step(self) -> Tensor:
        return self.scale

    def scale_gradient(self, x: Tensor) -> float:
        n = x.numel() // (len(x) if self.role == "activation" else self.channels or 1)
        return 1 / math.sqrt(n * self._q_p(self._bits))

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        ratio = self._step_ratio(self._bits, self._reference) if self._is_rescaled else 1.0
        return lsq(x, self.q_scale, -lo, hi, self.scale_gradient(x), ratio=ratio)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        return (x * (1 / self.scale)).clamp_(lo, hi).round_().to(code_dtype(lo, hi))

    def linear_codes(self) -> LinearCodes | None:
        if self.channels is not None:
            return None
        ratio = self._step_ratio(self._bits, self._reference) if self._is_rescaled else 1.0
        return LinearCodes(*self.levels(), ratio=ratio)


@register
class LSQPlus(LearnedStep):
    """LSQ+ (Bhalgat et al. 2020): activations with a learned offset, weights from μ and σ.

    Activations have codes 0..2^b-1 over [β, β + s(2^b-1)], so that a signed activation (a linear
    bottleneck, SiLU) wastes no level. s and β start where the squared error of the calibration data is
    smallest, at each bit-width. Weights are symmetric, s = max(|μ-3σ|, |μ+3σ|) / 2^(b-1), and have no
    offset. The gradients of s and β are scaled by 1/sqrt(N Q_P), as LSQ's.

    `q_offset` is β at the reference bit-width, and `q_starts` the initial s and β at each, (2, 17).
    """

    version = 2

    def __init__(self, **place) -> None:
        super().__init__(**place)
        if self.has_offset:
            self.q_offset = nn.Parameter(torch.zeros(1), requires_grad=self.q_scale.requires_grad)
            starts = torch.stack([torch.ones(MAX_BITS + 1), torch.zeros(MAX_BITS + 1)])
            self.register_buffer("q_starts", starts)

    @property
    def has_offset(self) -> bool:
        return self.role == "activation"

    def levels(self) -> tuple[int, int]:
        half = 2 ** (self._bits - 1)
        return (0, 2 * half - 1) if self.has_offset else (-half, half - 1)

    @property
    def offset(self) -> Tensor:
        """β at the current bit-width, (1,); it follows the bit-width by the difference of its starts."""
        if not self._is_rescaled:
            return self.q_offset
        return self.q_offset + (self.q_starts[1, self._bits] - self.q_starts[1, self._reference])

    def reset(self) -> None:
        super().reset()
        self._observer = Observer("mse") if self.has_offset else None

    def observe(self, x: Tensor) -> None:
        super().observe(x)
        if self.has_offset and x.numel():
            self._observer.update(x)

    def _merge(self) -> None:
        super()._merge()
        if self.has_offset:
            self._observer.merge()

    def _statistics(self, x: Tensor) -> Tensor:
        return moments(x, self.channels)

    def _initial_step(self, mean: Tensor) -> Tensor:
        if self.has_offset:
            seen = self._observer
            low, high = offset_ranges(seen.counts, seen.low, seen.high)  # (17,)
            levels = 2 ** torch.arange(MAX_BITS + 1, device=low.device) - 1
            width = high - low
            step = torch.where(width > 0, width / levels.clamp(min=1), 1.0)  # of a constant: any
            self.q_starts.copy_(torch.stack([step, low]))
            self.q_offset.copy_(low[self._reference])
            return step[self._reference]
        mu, sigma = mean[0], deviation(mean)
        largest = torch.maximum((mu - 3 * sigma).abs(), (mu + 3 * sigma).abs())
        return largest / 2 ** (self._reference - 1)

    def _step_ratio(self, bits: int, reference: int) -> Tensor | float:
        if self.has_offset:
            return self.q_starts[0, bits] / self.q_starts[0, reference]
        return 2.0 ** (reference - bits)

    @property
    def latent_step(self) -> Tensor | None:
        return None if self.has_offset else self.scale

    def scale_gradient(self, x: Tensor) -> float:
        _, hi = self.levels()
        n = x.numel() // (len(x) if self.has_offset else self.channels or 1)
        return 1 / math.sqrt(n * max(hi, 1))

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        if self.has_offset:
            return lsq_plus(x, self.scale, self.offset, hi, self.scale_gradient(x))
        return lsq(x, self.scale, -lo, hi, self.scale_gradient(x))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        ratio = (x - self.offset) / self.scale if self.has_offset else x * (1 / self.scale)
        return ratio.clamp_(lo, hi).round_().to(code_dtype(lo, hi))

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        return self.scale, self.offset if self.has_offset else 0.0
