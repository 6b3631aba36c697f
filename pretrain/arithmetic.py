"""The number format and the memory layout of forward and backward passes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_FORMATS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SIGNIFICANT_BITS = {"bf16": 8, "fp16": 11}


class Arithmetic:
    """How a step computes: networks under autocast or not, in which layout, with scaled losses.

    Views are made and losses computed in single precision whatever the format; weights, gradients
    and the optimizer stay in it. A fp16 step whose gradients overflow is skipped and counted; the
    scaler looks at the gradients for it, the one place where the host waits for the device.

    Args:
        device: where.
        amp: "off", "bf16" or "fp16".
        channels_last: whether images and features lie with the channel as the last dimension.
    """

    def __init__(
        self, device: torch.device, *, amp: str = "off", channels_last: bool = False
    ) -> None:
        self.device, self.dtype = device, _FORMATS[amp]
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.skipped = 0

    def place(self, framework: nn.Module) -> None:
        """Move a framework to the device; from now on its networks compute in format and layout."""
        framework.to(self.device, memory_format=self.layout)
        if self.dtype is None and self.layout is torch.contiguous_format:
            return
        for network in framework.children():
            network.forward = self._wrapped(network.forward)

    def _wrapped(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            images = x.contiguous(memory_format=self.layout) if x.dim() == 4 else x
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                return forward(images).to(x.dtype)

        return run

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled up where they would underflow."""
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
