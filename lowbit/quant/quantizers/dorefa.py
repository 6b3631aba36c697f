"""DoReFa, its bit-nested variants, and Any-Precision's variant with the weights' mean magnitude."""

import torch
from torch import Tensor

from lowbit.quant.kernels.learned_scale_quantize import interval
from lowbit.quant.kernels.range_quantize import code_dtype, wide
from lowbit.quant.quantizers.base import Quantizer, TransitionPoints, one_of, register


@register
class DoReFa(Quantizer):
    """DoReFa (Zhou et al. 2016): weights through tanh onto [-1, 1], activations clipped to [0, 1].

    With w̃ = ½(tanh w / max|tanh w| + 1), n = 2^k - 1 and code c:
        original: c = round(n w̃), w_q = 2c/n - 1; one bit: sign(w) E|w|.
        modified: c = min(⌊2^k w̃⌋, n), w_q = 2c/2^k - 1: -1, -½, 0, ½ at two bits. Lower-bit codes are
            the top bits of higher-bit ones (AdaBits; CoQuant's "modified DoReFa"), so one stored model
            covers every bit-width. Its values are 2^-k too low on average.
        centered: c as modified, w_q = (2c + 1)/2^k - 1, without that bias.
        stretched: c as modified, w_q = 2c/n - 1, the original's levels: -1, -⅓, ⅓, 1 at two bits.

    Activations: round(n clip(x, 0, 1))/n. The gradient passes straight through the rounding, is that
    of tanh for weights (the maximum is taken as a constant), and 0 where an activation is clipped.
    Nothing is learned and nothing is calibrated.

    Args:
        scheme: one of the four above; activations have one.
    """

    moves_with_weights = True
    fills_unit_range = True
    version = 2  # 1: `modified` was what `stretched` is

    def __init__(self, *, scheme: str = "original", **place) -> None:
        super().__init__(**place)
        one_of("scheme", scheme, ("original", "modified", "centered", "stretched"))
        self.scheme = scheme

    @property
    def positive_only(self) -> bool:
        return self.role == "activation"

    @property
    def code_distance(self) -> int:
        return 2 if self._is_sign else 1

    @property
    def has_nested_codes(self) -> bool:
        return self.scheme != "original"

    @property
    def ready(self) -> bool:
        return True

    @property
    def _is_sign(self) -> bool:
        return self.role == "weight" and self.scheme == "original" and self._bits == 1

    def levels(self) -> tuple[int, int]:
        return (-1, 1) if self._is_sign else (0, 2**self._bits - 1)

    @property
    def scale(self) -> Tensor:
        n = 2**self._bits - 1
        if self.role == "activation":
            return torch.tensor([1 / n])
        return torch.tensor([2 / (n if self.scheme in ("original", "stretched") else n + 1)])

    def _unit(self, w: Tensor) -> Tensor:
        """w̃ in [0, 1]."""
        t = w.tanh() if w.dtype == torch.float64 else w.float().tanh()
        magnitude = t.detach().abs()
        if self.channels is None:
            top = magnitude.amax()
        else:
            top = magnitude.flatten(1).amax(1).reshape(self.scale_shape)
        return t / (2 * torch.where(top > 0, top, 1.0)) + 0.5

    def _codes(self, x: Tensor) -> Tensor:
        n = 2**self._bits - 1
        if self.role == "activation":
            return x.float().clamp(0, 1).mul_(n).round_()
        if self._is_sign:
            return torch.where(x >= 0, 1.0, -1.0)
        unit = self._unit(x)
        if self.scheme == "original":
            return unit.mul(n).round_()
        return unit.mul(n + 1).floor_().clamp_(max=n)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        if self._is_sign:
            return self._mean_magnitude(x), 0.0
        n = 2**self._bits - 1
        step = self.scale.to(x.device)
        if self.role == "activation":
            return step, 0.0
        return step, (1 / (n + 1) if self.scheme == "centered" else 0.0) - 1.0

    def transition_points(self, weight: Tensor) -> TransitionPoints:
        if self.role == "activation":
            return super().transition_points(weight)
        if self._is_sign:
            return TransitionPoints(weight / weight.abs().mean(), 0.0, 0.0)
        n, unit = self.levels()[1], self._unit(weight)
        if self.scheme == "original":
            return TransitionPoints(unit * n, 0.5, n - 0.5)
        return TransitionPoints(unit * (n + 1), 1.0, float(n))  # floors instead of rounding

    def _mean_magnitude(self, w: Tensor) -> Tensor:
        magnitude = w.detach().abs()
        if self.channels is None:
            return magnitude.mean().reshape(1)
        return magnitude.flatten(1).mean(1).reshape(self.scale_shape)

    def _quantize(self, x: Tensor) -> Tensor:
        if self.role == "activation":
            n = 2**self._bits - 1
            return interval(x, torch.ones(1, device=x.device), 0, n, n)
        with torch.no_grad():
            step, offset = self.grid(x)
            value = self._codes(x) * step + offset
        smooth = x if self._is_sign else 2 * self._unit(x) - 1
        # In this order the value is exactly on the grid: the added term is exactly 0.
        return (value + (smooth - smooth.detach())).to(x.dtype)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return self._codes(x).to(code_dtype(*self.levels()))


@register
class ScaledDoReFa(DoReFa):
    """w_q = E|w| (2c/n - 1), DoReFa's values times a constant (Yu et al. 2021, Any-Precision DNNs).

    For weights only; the mean magnitude E|w| is per tensor or per channel and has no gradient.
    """

    fills_unit_range = False
    has_nested_codes = False  # values need E|w|, which the codes do not hold

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
