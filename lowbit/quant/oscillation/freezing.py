"""Iterative weight freezing: a weight that oscillates too often keeps its most frequent code."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.oscillation.annealing import Annealing
from lowbit.quant.oscillation.frequency import OSCILLATING, OscillationFrequency


class Freezing:
    """Freeze the code of each weight whose frequency of oscillation exceeds a threshold, for good.

    Nagel et al., Sec. 4.3 and Algorithm 1. The code is what is frozen, not the latent weight: where the
    scale goes on learning, the quantized weight moves with it, as code times step, and the scale gets the
    gradient of that. The code is the rounded running mean of the codes up to the step before.

    Args:
        layers: quantized layers by name, see `lowbit.quant.oscillation.attach.controlled_layers`.
        threshold: of the frequency, falling; nothing is frozen before it starts to move.
        momentum: m of frequencies and mean codes. The threshold should be two to three times as much:
            a single oscillation makes a frequency of m.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], threshold: Annealing, *, momentum: float = 1e-3
    ) -> None:
        self.layers, self.threshold = dict(layers), threshold
        self.frequency = OscillationFrequency(layers, momentum)
        self.step = 0
        self.frozen: Tensor | None = None

    @torch.no_grad()
    def before_step(self) -> None:
        """Correct the scales' gradients for frozen codes, and leave frozen weights none."""
        self._start()
        for layer, frozen, code in self._parts():
            grad, quantizer = layer.weight.grad, layer.w_quant
            if grad is None:
                continue
            if quantizer.q_scale.grad is not None:
                # The straight-through estimator has the code change with the scale, and a frozen one
                # does not: the term -(w / step) dstep/ds of its gradient is taken back.
                term = torch.where(frozen, grad * code, 0).sum_to_size(quantizer.scale_shape)
                with torch.enable_grad():
                    step = quantizer.latent_step
                term = (term * quantizer.scale_gradient(layer.weight)).to(step.dtype)
                (own,) = torch.autograd.grad(step, quantizer.q_scale, term.expand_as(step))
                quantizer.q_scale.grad.add_(own)
            grad.masked_fill_(frozen, 0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count oscillations, freeze, and set frozen weights to their codes."""
        seen = self.frequency
        seen.update(self.frozen)
        if self.threshold.started(self.step):
            latest = seen.codes.latest
            new = (seen.value > self.threshold.at(self.step)).logical_and_(~self.frozen)
            torch.where(new, seen.mean_code.round().to(latest.dtype), latest, out=latest)
            self.frozen.logical_or_(new)
        seen.average()
        for layer, frozen, code in self._parts():
            held = code.to(layer.weight.dtype) * layer.w_quant.latent_step.detach()
            layer.weight.copy_(torch.where(frozen, held, layer.weight))
        self.step += 1

    def _start(self) -> None:
        self.frequency.start()
        if self.frozen is None:
            self.frozen = torch.zeros_like(self.frequency.value, dtype=torch.bool)

    def _parts(self) -> list[tuple[nn.Module, Tensor, Tensor]]:
        """Return each layer with its flags and codes, shaped like its weight."""
        codes = self.frequency.codes
        return list(
            zip(
                self.layers.values(),
                codes.pieces(self.frozen),
                codes.pieces(codes.latest),
                strict=True,
            )
        )

    def report(self) -> dict[str, Any]:
        """Return the threshold and, for each layer, shares of weights frozen and oscillating.

        Oscillating are those of a frequency above `OSCILLATING` that are not frozen. Reads the device.
        """
        self._start()
        moving = (self.frequency.value > OSCILLATING).logical_and_(~self.frozen)
        return {
            "threshold": self.threshold.at(max(self.step - 1, 0)),
            "names": list(self.layers),
            "frozen": self.frequency.shares(self.frozen),
            "oscillating": self.frequency.shares(moving),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the step, what is frozen, and the frequencies."""
        counted = self.frequency.state_dict()
        frozen = {} if self.frozen is None else {"frozen": self.frozen}
        return {"step": self.step, **frozen, "frequency": counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; frozen weights stay frozen at their codes."""
        self.step = state["step"]
        self.frequency.load_state_dict(state["frequency"])
        if "frozen" in state:
            self._start()
            self.frozen.copy_(state["frozen"])
