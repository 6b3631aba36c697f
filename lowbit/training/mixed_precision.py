"""Number format and memory layout of forward and backward passes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_FORMATS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SIGNIFICANT_BITS = {"bf16": 8, "fp16": 11}


class MixedPrecision:
    """How a step computes: autocast, loss scaling and memory layout.

    Weights, gradients and the optimizer stay in single precision whatever the format. A fp16 step
    whose gradients overflow is skipped and counted; this check of the gradients is the only
    place where the host waits for the device.

    Args:
        device: where.
        amp: "off", "bf16" or "fp16".
        channels_last: whether images and features are stored with the channel as the last dimension.
    """

    def __init__(
        self, device: torch.device, *, amp: str = "off", channels_last: bool = False
    ) -> None:
        self.device, self.dtype = device, _FORMATS[amp]
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.skipped = 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def place(self, model: nn.Module) -> None:
        """Move a model to the device; from now on its children compute in this format and layout.

        Outputs have the format of the inputs, so that whatever combines them
        computes in single precision.
        """
        model.to(self.device, memory_format=self.layout)
        if self.dtype is None and self.layout is torch.contiguous_format:
            return
        for network in model.children():
            network.forward = self._wrapped(network.forward)

    def _wrapped(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            images = x.contiguous(memory_format=self.layout) if x.dim() == 4 else x
            with self.autocast():
                return forward(images).to(x.dtype)

        return run

    def backward(self, loss: Tensor) -> None:
        """Accumulate a loss's gradients outside autocast, scaled up where they would underflow."""
        with torch.autocast(self.device.type, enabled=False):
            self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """Let the optimizer step, unless a gradient overflowed."""
        if not self.scaler.is_enabled():
            optimizer.step()
            return
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < before

    def state_dict(self) -> dict[str, Any]:
        """Return the scale of losses and the count of skipped steps."""
        return {"scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
