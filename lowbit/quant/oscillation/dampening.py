"""Oscillation dampening: pull latent weights to the middle of their interval."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.oscillation.annealing import Annealing

SUMS = ("kernel-mean", "sum")


class Dampening:
    """Add the gradient of λ ‖ŵ - clip(w, s n, s p)‖² to that of the loss (Nagel et al., Sec. 4.2).

    ŵ = s·code is the middle of the interval that a latent weight w is in, and a constant here, so neither
    it nor the scale gets a gradient. Clipped weights have none: ŵ is their bound.

    With quantizers whose output is not s·code (`Interval`) the middle is still that of the interval of
    latent weights, s/γ·code.

    Args:
        layers: quantized layers by name, see `lowbit.quant.oscillation.attach.controlled_layers`.
        weight: λ over the training; from 0, as weights that cannot move at first do not learn.
        reduce: "sum" over all weights, as the paper's norm; "kernel-mean", a layer's sum over its outputs
            of the mean over a kernel, as the authors' code, to which their λ = 0.1 belongs.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], weight: Annealing, *, reduce: str = "kernel-mean"
    ) -> None:
        if reduce not in SUMS:
            raise ValueError(
                f"dampening cannot be reduced by {reduce!r}; nothing was trained. Use one of "
                f"{', '.join(SUMS)}."
            )
        self.layers, self.weight, self.reduce = dict(layers), weight, reduce
        self.step = 0

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the regularizer's gradient, 2 λ (w - ŵ) within the range."""
        factor = 2 * self.weight.at(self.step)
        if factor:
            for layer in self.layers.values():
                if layer.weight.grad is not None:
                    layer.weight.grad.add_(
                        self._residual(layer), alpha=factor / self._kernel(layer)
                    )
        self.step += 1

    def after_step(self) -> None:
        """Do nothing: all that dampening does is in the gradient."""

    def _residual(self, layer: nn.Module) -> Tensor:
        """Return clip(w, s n, s p) - ŵ."""
        step = layer.w_quant.latent_step.detach()
        position = (layer.weight.detach() / step).clamp_(*layer.w_quant.levels())
        return position.sub_(position.round()).mul_(step)

    def _kernel(self, layer: nn.Module) -> int:
        """Number of weights whose mean is taken."""
        return 1 if self.reduce == "sum" else layer.weight[0].numel()

    @torch.no_grad()
    def report(self) -> dict[str, Any]:
        """Return λ of the last step and, for each layer, the loss without it; reads the device."""
        losses = [
            self._residual(layer).square().sum() / self._kernel(layer)
            for layer in self.layers.values()
        ]
        return {
            "weight": self.weight.at(max(self.step - 1, 0)),
            "names": list(self.layers),
            "loss": torch.stack([loss.double() for loss in losses]).tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps taken."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue λ's schedule."""
        self.step = state["step"]
