"""Optimizers and the learning rate of pretraining."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

Unit = Literal["epoch", "step"]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), which Contrastive Quant trains with.

    A weight's update is lr * eta |w| / |g + wd w| times its decayed gradient, in momentum. Vectors
    (biases, normalization) take plain momentum steps without decay, as SimCLR does it.

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: of the scaled gradient.
        weight_decay: of matrices and kernels.
        eta: trust coefficient.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; gradients that are None are skipped."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    update = self._scaled(p, group)
                    buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
                    p.sub_(buffer.mul_(group["momentum"]).add_(update), alpha=group["lr"])
        return loss

    @staticmethod
    def _scaled(p: Tensor, group: dict) -> Tensor:
        if p.dim() < 2:
            return p.grad
        update = p.grad.add(p, alpha=group["weight_decay"])
        weight_norm, update_norm = p.norm(), update.norm()
        known = (weight_norm > 0) & (update_norm > 0)
        return update * torch.where(known, group["eta"] * weight_norm / update_norm, 1.0)


def create_optimizer(
    name: str, model: nn.Module, *, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """Build "sgd" (decay on every parameter, as official SSQL) or "lars" over what is trainable."""
    kind = {"sgd": SGD, "lars": LARS}[name]
    trainable = [p for p in model.parameters() if p.requires_grad]
    return kind(trainable, lr=lr, momentum=momentum, weight_decay=weight_decay)


def learning_rate(
    epoch: int,
    step: int,
    *,
    lr: float,
    epochs: int,
    warmup_epochs: int,
    steps: int,
    unit: Unit,
) -> float:
    """Return the rate of a step: linear warm-up, then lr/2 (1 + cos(pi t)), t in 0..1.

    Args:
        epoch, step: counted from 0, the step within its epoch.
        lr: base rate.
        epochs, warmup_epochs: of the whole run, warm-up included.
        steps: steps an epoch.
        unit: "epoch" holds the rate for an epoch (official SSQL), "step" changes it every step.

    Example:
        >>> [learning_rate(e, 0, lr=1.0, epochs=4, warmup_epochs=2, steps=9, unit="epoch")
        ...  for e in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    time, tick = (epoch, 1.0) if unit == "epoch" else (epoch + step / steps, 1 / steps)
    if time < warmup_epochs:
        return lr * (time + tick) / warmup_epochs
    progress = (time - warmup_epochs) / (epochs - warmup_epochs)
    return lr * (1 + math.cos(math.pi * progress)) / 2
