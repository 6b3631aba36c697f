"""Element-wise gradient scaling: an interval quantizer with a corrected rounding gradient."""

import torch
from torch import Tensor, nn

from lowbit.quant.kernels.learned_clip_quantize import ewgs
from lowbit.quant.kernels.range_quantize import code_dtype, wide
from lowbit.quant.quantizers.base import TransitionPoints, register
from lowbit.quant.quantizers.learned import LearnedScale, interval_scale, moments


@register
class EWGS(LearnedScale):
    """EWGS (Lee, Kim and Ham 2021), with learned interval bounds l and u.

    x_n = clip((x-l)/(u-l), 0, 1), x_q = round((2^b-1) x_n)/(2^b-1); weights are mapped on to
    2(x_q - ½) in [-1, 1]. The rounding's gradient is g (1 + δ sign(g) (x_n - x_q)). Bounds start at
    ±3 std for weights, 0 and 3 std / sqrt(1 - 2/π) for activations. As with `Interval` the output's
    range is fixed, so a normalization or an output scale must follow.

    `q_scale` is the width u - l; `q_lower` is l.

    Args:
        delta: δ; 0 is the straight-through estimator.
    """

    rescales = True

    def __init__(self, *, delta: float = 1e-3, **place) -> None:
        super().__init__(**place)
        self.delta = delta
        self.q_lower = nn.Parameter(
            torch.zeros(self.scale_shape), requires_grad=self.q_scale.requires_grad
        )

    @property
    def gain(self) -> Tensor:
        width = self.scale.detach()
        return width / 2 if self.role == "weight" else width

    def levels(self) -> tuple[int, int]:
        return 0, 2**self._bits - 1

    def _statistics(self, x: Tensor) -> Tensor:
        return moments(x, self.channels)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        upper = interval_scale(mean, signed=self.signed)
        if not self.signed:
            self.q_lower.zero_()
            return upper
        self.q_lower.copy_(-upper.reshape(self.scale_shape))
        return 2 * upper

    def _quantize(self, x: Tensor) -> Tensor:
        y = ewgs(wide(x), self.q_lower, self.scale, self.levels()[1], self.delta)
        return (2 * y - 1 if self.role == "weight" else y).to(x.dtype)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        n = self.levels()[1]
        unit = ((x - self.q_lower) / self.scale).clamp_(0, 1)
        return unit.mul_(n).round_().to(code_dtype(0, n))

    def transition_points(self, weight: Tensor) -> TransitionPoints:
        n = self.levels()[1]
        return TransitionPoints((weight - self.q_lower) / self.scale * n, 0.5, n - 0.5)

    def grid(self, x: Tensor) -> tuple[Tensor, float]:
        step = torch.full((1,), 1 / self.levels()[1], device=x.device)
        return (2 * step, -1.0) if self.role == "weight" else (step, 0.0)
