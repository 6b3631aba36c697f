"""PACT: activations clipped at a learned level."""

import torch
from torch import Tensor

from lowbit.quant.kernels.learned_clip_quantize import pact
from lowbit.quant.kernels.range_quantize import code_dtype
from lowbit.quant.quantizers.base import register
from lowbit.quant.quantizers.learned import LearnedScale


@register
class PACT(LearnedScale):
    """Parameterized clipping activation (Choi et al. 2018); for activations only.

    `q_scale` is the clipping level α, one for all bit-widths; the step is α/(2^b-1). The published
    method decays α by L2: give `lowbit.quant.scales(model)` a weight decay.

    Args:
        alpha: initial level (CoQuant: 8 on CIFAR and ImageNet, 4 or 2 on video); None starts at the
            largest activation seen in calibration.
    """

    positive_only = True
    learned_clip = True

    def __init__(self, *, alpha: float | None = None, **place) -> None:
        super().__init__(**place)
        if self.role != "activation":
            raise ValueError(
                "PACT clips activations at zero from below; no weight quantizer was made. Use DoReFa "
                "for the weights, as the paper does."
            )
        self.alpha = alpha

    def levels(self) -> tuple[int, int]:
        return 0, 2**self._bits - 1

    @property
    def scale(self) -> Tensor:
        return self._magnitude() / (2**self._bits - 1)

    def _statistics(self, x: Tensor) -> Tensor:
        return x.new_zeros(1)  # only the largest value matters

    def _initial_scale(self, mean: Tensor) -> Tensor:
        return self._high if self.alpha is None else torch.full_like(self._high, self.alpha)

    def _quantize(self, x: Tensor) -> Tensor:
        return pact(x, self._magnitude(), self.levels()[1])

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        return (x / self.scale).clamp_(lo, hi).round_().to(code_dtype(lo, hi))
