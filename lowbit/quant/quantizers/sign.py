"""Binary weights and activations."""

import torch
from torch import Tensor

from lowbit.quant.kernels.learned_clip_quantize import sign
from lowbit.quant.quantizers.base import TransitionPoints, one_of, register
from lowbit.quant.quantizers.learned import LearnedScale, interval_scale, moments


@register
class Sign(LearnedScale):
    """One-bit values ±1, sign(0) = +1 (transition-rate scheduling; ReActNet; Bi-Real Net).

    With `magnitude: none` the output is ±1 and the gradient 1/s inside |x| <= s: the vanilla binary
    network of transition-rate scheduling, whose scale starts at 3 std. With `magnitude: mean` weights
    become ±E|w| (ReActNet); then only the sign is a code, as the magnitude moves with the data. Its
    scale is 1, and the gradient, 1 inside |w| <= 1, ignores the magnitude, as in ReActNet's own code.

    Args:
        magnitude: "none" or "mean".
        gradient: "clip" (slope 1) or "polynomial" (slope 2 - 2|x/s|, for activations).
        interval: initial scale: "data", 3 std, or "unit", 1 (Bi-Real Net, ReActNet).
    """

    rescales = True

    def __init__(
        self,
        *,
        magnitude: str = "none",
        gradient: str = "clip",
        interval: str = "data",
        **place,
    ) -> None:
        super().__init__(**place)
        one_of("magnitude", magnitude, ("none", "mean"))
        one_of("gradient", gradient, ("clip", "polynomial"))
        one_of("interval", interval, ("data", "unit"))
        self.magnitude, self.gradient = magnitude, gradient
        self.interval = "unit" if magnitude == "mean" else interval

    @property
    def code_distance(self) -> int:
        return 2

    @property
    def gain(self) -> Tensor | float:
        return self.scale.detach() if self.magnitude == "none" else 1.0

    def levels(self) -> tuple[int, int]:
        return -1, 1

    def _statistics(self, x: Tensor) -> Tensor:
        return moments(x, self.channels)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        if self.interval == "unit":
            return torch.ones_like(mean[0])
        return interval_scale(mean, signed=True)

    def _size(self, x: Tensor) -> Tensor | float:
        if self.magnitude == "none":
            return 1.0
        magnitude = x.abs()
        if self.channels is None:
            return magnitude.mean().reshape(1)
        return magnitude.flatten(1).mean(1).reshape(self.scale_shape)

    def _quantize(self, x: Tensor) -> Tensor:
        y = sign(x, self.scale, polynomial=self.gradient == "polynomial")
        if self.magnitude == "none":
            return y
        # In this order the value is exactly on the grid: the added term is exactly 0.
        return (y.detach() * self._size(x.detach()) + (y - y.detach())).to(x.dtype)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, 1, -1).to(torch.int8)

    def transition_points(self, weight: Tensor) -> TransitionPoints:
        return TransitionPoints(weight / self.scale, 0.0, 0.0)

    def grid(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        size = self._size(x.detach())
        return torch.ones(1, device=x.device) * size, 0.0
