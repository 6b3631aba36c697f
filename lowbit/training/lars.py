"""Layer-wise adaptive rate scaling, for large batches."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), used by Contrastive Quant.

    The momentum accumulates lr * eta |w| / |g + wd w| times a weight's decayed gradient. Vectors
    (biases, normalization) take plain momentum steps without decay, as in SimCLR.

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: of the scaled gradient.
        weight_decay: for matrices and kernels.
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
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            # Vectors last, so that the updates of the others need no second list of buffers.
            params.sort(key=lambda p: p.dim() < 2)
            updates = self._scaled([p for p in params if p.dim() >= 2], group)
            updates += [p.grad for p in params if p.dim() < 2]
            buffers = [self._buffer(p) for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        return loss

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]

    @staticmethod
    def _scaled(weights: list[Tensor], group: dict) -> list[Tensor]:
        """Return eta |w| / |g + wd w| (g + wd w); unscaled if either norm is 0."""
        if not weights:
            return []
        updates = list(
            torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
        )
        norms = torch.stack(torch._foreach_norm(weights))
        update_norms = torch.stack(torch._foreach_norm(updates))
        known = (norms > 0) & (update_norms > 0)
        trust = torch.where(known, group["eta"] * norms / update_norms, 1.0)
        torch._foreach_mul_(updates, list(trust.unbind()))
        return updates
