"""Any-Precision's weights: DoReFa scaled back to the weights' mean magnitude."""

import torch
from torch import Tensor

from lowbit.quant.kernels.range_quantize import wide
from lowbit.quant.quantizers.base import register
from lowbit.quant.quantizers.dorefa import DoReFa


@register
class ScaledDoReFa(DoReFa):
    """w_q = E|w| (2c/n - 1), DoReFa's values times a constant (Yu et al. 2021, Any-Precision DNNs).

    For weights only; the mean magnitude E|w| is of the tensor, or of each channel, and has no gradient.
    """

    def __init__(self, **place) -> None:
        super().__init__(**place)
        if self.role != "weight":
            raise ValueError(
                "ScaledDoReFa quantizes weights; no activation quantizer was made. Use DoReFa, as "
                "Any-Precision does."
            )

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        step, offset = super().grid(x)
        if self._is_sign:
            return step, offset  # sign(w) E|w| already
        magnitude = self._mean_magnitude(wide(x))
        return step * magnitude, offset * magnitude

    def _quantize(self, x: Tensor) -> Tensor:
        if self._is_sign:
            return super()._quantize(x)
        with torch.no_grad():
            step, offset = self.grid(x)
            value = self._codes(x) * step + offset
        smooth = 2 * self._mean_magnitude(wide(x)) * self._unit(x)
        return (value + (smooth - smooth.detach())).to(x.dtype)  # exact, as DoReFa's
