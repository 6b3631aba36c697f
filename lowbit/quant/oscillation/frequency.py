"""How often each weight's code changes back and forth."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.transition.codes import Codes

OSCILLATING = 0.005  # frequency above which a weight counts as oscillating in logs


class OscillationFrequency:
    """Running frequency of oscillations of all weights, in one buffer (Nagel et al., Eqs. 5 to 7).

    A code that changes in the direction opposite to its last change is an oscillation o, and
    f <- m o + (1 - m) f. Codes are averaged alike, which tells a weight's most frequent one.

    Args:
        layers: quantized layers by name.
        momentum: m, weight of the present.
    """

    def __init__(self, layers: Mapping[str, nn.Module], momentum: float) -> None:
        self.codes, self.momentum = Codes(layers), momentum
        self.direction = self.value = self.mean_code = None

    @torch.no_grad()
    def start(self) -> None:
        """Read the codes before the first step; later calls do nothing."""
        if self.value is None:
            self.codes.start()
            self._allocate()

    def _allocate(self) -> None:
        latest = self.codes.latest
        self.direction = torch.zeros_like(latest, dtype=torch.int8)  # of the last change
        self.value = torch.zeros_like(latest, dtype=torch.float32)  # f
        self.mean_code = latest.float()

    @torch.no_grad()
    def update(self, held: Tensor | None = None) -> None:
        """Read the codes after a step, without waiting for the device.

        Args:
            held: weights whose code stays what it was, whatever their latent weight.
        """
        self.codes.advance()
        latest, before = self.codes.latest, self.codes.previous
        if held is not None:
            torch.where(held, before, latest, out=latest)
        turn = (latest > before).to(torch.int8) - (latest < before).to(torch.int8)
        oscillated = turn * self.direction == -1
        self.value.lerp_(oscillated.float(), self.momentum)
        torch.where(turn != 0, turn, self.direction, out=self.direction)

    @torch.no_grad()
    def average(self) -> None:
        """Add the codes read last to their averages."""
        self.mean_code.lerp_(self.codes.latest.float(), self.momentum)

    def shares(self, flags: Tensor) -> list[float]:
        """Return the share of each layer's weights that have a flag; reads the device."""
        pieces = self.codes.pieces(flags)
        return torch.stack([piece.double().mean() for piece in pieces]).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Return codes, directions, frequencies and averages."""
        if self.value is None:
            return {}
        return {
            **self.codes.state_dict(),
            "direction": self.direction,
            "frequency": self.value,
            "mean_code": self.mean_code,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a saved state."""
        if state:
            self.codes.load_state_dict(state)
            self._allocate()
            self.direction.copy_(state["direction"])
            self.value.copy_(state["frequency"])
            self.mean_code.copy_(state["mean_code"])
