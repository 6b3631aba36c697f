"""Count the transition rates of any optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lowbit.quant.transition.codes import Codes


class TransitionCounter:
    """Count the transitions of any optimizer, so that plain ones can be compared with T-optimizers.

    Example:
        >>> import torch
        >>> from lowbit.quant import Precision, quantize, quantized_layers
        >>> net = quantize(torch.nn.Sequential(torch.nn.Linear(4, 4)), "lsq", Precision(4, 4))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> counter = TransitionCounter(quantized_layers(net))
        >>> handle = optimizer.register_step_post_hook(counter)
        >>> net[0].weight.grad = torch.ones(4, 4)
        >>> optimizer.step()
        >>> counter.rates()["names"], len(counter.rates()["rate"])
        (['0'], 1)

    Args:
        layers: quantized layers by name, with the bits they are trained at.
        momentum: m, weight of the past in the running rate K.
    """

    def __init__(self, layers: Mapping[str, nn.Module], *, momentum: float = 0.99) -> None:
        self.momentum = momentum
        self.codes = Codes(layers)
        self.codes.start()
        self.running = torch.zeros_like(self.codes.numel)

    def __call__(self, *_: Any) -> None:
        """Count the codes that the last step changed."""
        if self.codes.stale:
            self.codes.start()
            return
        self.codes.advance()
        self.running.lerp_(self.codes.changed / self.codes.numel, 1 - self.momentum)

    def rates(self) -> dict[str, Any]:
        """Return each layer's transition rate k, running rate K and effective step; reads the device."""
        codes = self.codes
        return {
            "names": codes.names,
            "rate": (codes.changed / codes.numel).tolist(),
            "running": self.running.tolist(),
            "effective_step": codes.effective_steps(codes.distances()).tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the running rates and the last codes (int8)."""
        return {"running": self.running, **self.codes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a saved state."""
        self.codes.load_state_dict(state)
        self.running.copy_(state["running"])
