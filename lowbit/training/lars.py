"""Layer-wise adaptive rate scaling, for large batches."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), used by Contrastive Quant and SimSiam.

    The momentum accumulates eta |w| / |g + wd w| times a weight's decayed gradient, and a step is lr times
    it. Vectors (biases, normalization, quantizer scales) take plain momentum steps without decay, as in
    SimCLR.

    The trust ratio always applies, also with weight decay 0. Some packages skip it there (timm's, unless
    `always_adapt`), which makes a linear evaluation with LARS one with SGD; NVIDIA's LARC with
    `clip=False`, which SimSiam's code has, applies it, also to vectors that are not 0.

    Args:
        params: parameters or groups; of groups with `role` "scale" all members count as vectors.
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
            params.sort(key=lambda p: not self._is_scaled(p, group))
            scaled = [p for p in params if self._is_scaled(p, group)]
            updates = self._scaled(scaled, group) + [p.grad for p in params[len(scaled) :]]
            buffers = [self._buffer(p) for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        return loss

    def _is_scaled(self, p: Tensor, group: dict) -> bool:
        """Whether the trust ratio and the decay apply to a parameter."""
        return p.dim() >= 2 and group.get("role") != "scale"

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]

    def _scaled(self, weights: list[Tensor], group: dict) -> list[Tensor]:
        """Return eta |w| / |g + wd w| (g + wd w); unscaled if either norm is 0."""
        if not weights:
            return []
        updates = list(
            torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
        )
        norms = torch.stack(torch._foreach_norm(weights))
        trust = trust_ratio(norms, torch.stack(torch._foreach_norm(updates)), group["eta"])
        torch._foreach_mul_(updates, list(trust.unbind()))
        return updates


class LARC(LARS):
    """Layer-wise adaptive rate control: LARS whose rate is at most lr, as NVIDIA's `LARC` clips it.

    The rate of a tensor is min(eta |w| / (|g| + wd |w|), lr); vectors have one as well. A tensor that is 0,
    or whose gradient is, takes a plain step without decay. Quantizer scales do as well, at lr.
    """

    def _is_scaled(self, p: Tensor, group: dict) -> bool:
        return group.get("role") != "scale"

    def _scaled(self, weights: list[Tensor], group: dict) -> list[Tensor]:
        if not weights:
            return []
        grads, decay = [w.grad for w in weights], group["weight_decay"]
        norms, grad_norms = (torch.stack(torch._foreach_norm(t)) for t in (weights, grads))
        share = clipped_ratio(norms, grad_norms, decay, group["eta"], group["lr"])
        decays = decay * ((norms > 0) & (grad_norms > 0)).to(norms.dtype)
        updates = torch._foreach_mul(weights, list(decays.unbind()))
        torch._foreach_add_(updates, grads)
        torch._foreach_mul_(updates, list(share.unbind()))
        return list(updates)


def trust_ratio(norm: Tensor, update_norm: Tensor, eta: float) -> Tensor:
    """Return LARS's eta |w| / |u| of decayed gradients u; 1 where either norm is 0."""
    known = (norm > 0) & (update_norm > 0)
    return torch.where(known, eta * norm / update_norm, 1.0)


def clipped_ratio(
    norm: Tensor, grad_norm: Tensor, decay: float, eta: float, lr: float | Tensor
) -> Tensor:
    """Return LARC's min(eta |w| / (|g| + wd |w|) / lr, 1); 1 where either norm is 0."""
    known = (norm > 0) & (grad_norm > 0)
    share = eta * norm / (grad_norm + decay * norm) / lr
    return torch.where(known, share.clamp(max=1.0), 1.0)
