"""Transition-rate scheduling: optimizers that control how often quantized weights change level.

A transition is a change of a weight's integer code from one step to the next. Each quantized layer
has its own adaptive learning rate U, moved so that its running transition rate K follows a target R
that decays to zero (Lee et al., "Scheduling weight transitions for quantization-aware training",
Eqs. 5 and 10-12, Algorithm 1):

    k = mean(code_t != code_{t-1})        transition rate of the layer, 0 at the first step
    K = m K + (1-m) k                     running rate, K_0 = 0
    U = max(0, U + η (R - K))             adaptive learning rate, U_0 = η
    w = w - U g                           in place of the layer's learning rate

`transition(SGD)` is SGDT, `transition(AdamW)` is AdamWT: the base optimizer with one param group a
quantized layer, whose `lr` is U for the length of a step. That is exact for every optimizer whose
step is linear in `lr`, and only for those.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn, optim

from quant import fused
from quant.convert import quantized_layers
from quant.quantizers import Interval

# Optimizers whose step is linear in lr and that keep no lr in their state (SPEC: checked one by one).
LINEAR = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.Adamax,
    optim.RMSprop,
    optim.Adagrad,
)


def target_rate(lambda_: float, weight_bits: int) -> float:
    """Return the initial target R_0 = λ sqrt(b_w).

    Example:
        >>> target_rate(1e-3, 4)
        0.002
    """
    return lambda_ * math.sqrt(weight_bits)


def target_at(target: float, step: int, total_steps: int, schedule: str) -> float:
    """Return the target R_t of a schedule that falls from `target` to 0 over `total_steps`."""
    progress = min(step / total_steps, 1.0)
    if schedule == "cosine":
        return target * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return target * (1 - progress)
    return target


SCHEDULES = ("cosine", "linear", "constant")


@cache
def transition(base: type[optim.Optimizer]) -> type[optim.Optimizer]:
    """Return the transition-rate variant of a torch optimizer.

    Raises:
        ValueError: the optimizer's step is not linear in its learning rate.

    Example:
        >>> SGDT = transition(torch.optim.SGD)
        >>> SGDT.__name__
        'SGDT'
    """
    if base not in LINEAR:
        raise ValueError(
            f"{base.__name__} has no transition-rate variant; no optimizer was made. Its step is not "
            f"known to be linear in its learning rate. Use one of "
            f"{', '.join(cls.__name__ for cls in LINEAR)}."
        )
    return type(f"{base.__name__}T", (_Transition, base), {"__doc__": _Transition.__doc__})


class _Transition:
    """A torch optimizer whose learning rate of each quantized layer follows a target transition rate.

    Parameters that are no quantized layer's weight are stepped by the base optimizer as ever. Frozen
    stay the scales of the weights it schedules: moving one would move every transition point.

    Args:
        params: as for the base optimizer.
        model: the quantized model the weights belong to.
        lr: learning rate of everything else, and U_0.
        target: initial target rate R_0, see `target_rate`.
        total_steps: steps over which the target falls to 0.
        schedule: "cosine", "linear" or "constant".
        eta: step of the controller η; the initial learning rate if None.
        momentum_k: m, weight of the past in the running rate.
        **kwargs: the base optimizer's.
    """

    def __init__(
        self,
        params: Iterable,
        *,
        model: nn.Module,
        lr: float,
        target: float,
        total_steps: int,
        schedule: str = "cosine",
        eta: float | None = None,
        momentum_k: float = 0.99,
        **kwargs: Any,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(
                f"target schedule {schedule!r} is unknown; no optimizer was made. "
                f"Use one of {', '.join(SCHEDULES)}."
            )
        if total_steps < 1:
            raise ValueError(
                f"total_steps is {total_steps}; no optimizer was made. The target rate needs at least "
                "one step to fall over."
            )
        layers = {layer.weight: layer for layer in quantized_layers(model).values()}
        frozen = {scale for layer in layers.values() for scale in layer.w_quant.parameters()}
        groups, latent = _split(params, layers, frozen)
        if not latent:
            raise ValueError(
                "no parameter given belongs to a quantized layer; no optimizer was made. Call "
                "quant.quantize(model, ...) first, and pass the model's own parameters."
            )
        super().__init__(groups, lr=lr, **kwargs)
        self.target, self.total_steps, self.schedule = target, total_steps, schedule
        self.eta, self.momentum_k = lr if eta is None else eta, momentum_k
        self._layers = [layers[weight] for weight in latent]
        self._latent_groups = self.param_groups[-len(latent) :]
        for layer in self._layers:
            layer.w_quant.requires_grad_(False)
        device = latent[0].device
        self._step = 0
        self._codes: list[Tensor] | None = None
        self._changed: Tensor | None = None
        self._numel = torch.tensor([float(w.numel()) for w in latent], device=device)
        self._running = torch.zeros(len(latent), device=device)  # K
        self._rate = torch.tensor(  # U
            [float(group["lr"]) for group in self._latent_groups], device=device
        )

    def _begin(self) -> list[Tensor]:
        """Return the codes before the first step; none has changed yet."""
        self._changed = torch.zeros_like(self._running)
        return [layer.w_quant.codes(layer.weight) for layer in self._layers]

    def _schedule(self) -> None:
        """Move K and U by what the codes did in the last step."""
        self._running.lerp_(self._changed / self._numel, 1 - self.momentum_k)
        target = target_at(self.target, self._step, self.total_steps, self.schedule)
        self._rate.add_(target - self._running, alpha=self.eta).clamp_(min=0)
        self._step += 1

    @torch.no_grad()
    def step(self, closure=None):
        """Set each layer's U, then step the base optimizer.

        Transitions are counted behind the step, from the weights it leaves. A step that a gradient
        scaler skips never arrives here, so it moves neither K nor U.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._codes is None:
            self._codes = self._begin()
        self._schedule()
        if self._is_fused():
            self._fused_step()
        else:
            self._plain_step()
        return loss

    def _plain_step(self) -> None:
        # The fused optimizers of torch take lr as a tensor on the device; the others want a number.
        on_device = bool(self.defaults.get("fused"))
        rates = self._rate.unbind() if on_device else self._rate.tolist()
        with self._rates_set_to(rates):
            super().step()
        codes = [layer.w_quant.codes(layer.weight) for layer in self._layers]
        changed = [(c != p).sum() for c, p in zip(codes, self._codes, strict=True)]
        self._changed = torch.stack(changed).to(self._running.dtype)
        self._codes = codes

    @contextmanager
    def _rates_set_to(self, rates: Iterable) -> Iterator[None]:
        """Give each layer's group its own lr; a learning-rate scheduler finds them as it left them."""
        kept = [group["lr"] for group in self._latent_groups]
        for group, rate in zip(self._latent_groups, rates, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for group, lr in zip(self._latent_groups, kept, strict=True):
                group["lr"] = lr

    def _is_fused(self) -> bool:
        """Whether the one-pass kernel serves: plain SGD on interval-quantized float32 weights."""
        return (
            isinstance(self, optim.SGD)
            and fused.fused_kernels(self._rate.device)
            and not any(
                g["nesterov"] or g["maximize"] or g["dampening"] for g in self._latent_groups
            )
            and all(
                type(layer.w_quant) is Interval
                and layer.w_quant.channels is None
                and layer.weight.grad is not None
                and layer.weight.dtype == torch.float32
                and fused.fits(layer.weight, layer.weight.grad)
                for layer in self._layers
            )
        )

    def _fused_step(self) -> None:
        """Decay, momentum, update, codes and count in one pass over each layer's weights."""
        changed = []
        grads = []
        for index, (layer, group) in enumerate(zip(self._layers, self._latent_groups, strict=True)):
            weight, quantizer = layer.weight, layer.w_quant
            state = self.state[weight]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weight)
            alpha, beta, gamma = quantizer.constants()
            device, scale = weight.device, quantizer.scale
            changed.append(
                fused.sgd_transition_step(
                    *(fused.flat(t, scale) for t in (weight, weight.grad)),
                    fused.flat(state["momentum_buffer"], scale),
                    fused.flat(self._codes[index], scale),
                    self._rate[index : index + 1],
                    fused.column(scale),
                    fused.bounds(group["weight_decay"], group["momentum"], device),
                    fused.bounds(alpha, beta, device),
                    fused.bounds(gamma, 0, device),
                )
            )
            grads.append(weight.grad)
            weight.grad = None  # stepped: the base optimizer passes over it
        try:
            super().step()
        finally:
            for layer, grad in zip(self._layers, grads, strict=True):
                layer.weight.grad = grad
        self._changed = torch.stack(changed).to(self._running.dtype)

    def rates(self) -> dict[str, Any]:
        """Return the target and, for each quantized layer, the running rate K and the rate U.

        Reads from the device; call it when logging, not in every step.
        """
        step = max(self._step - 1, 0)
        return {
            "target": target_at(self.target, step, self.total_steps, self.schedule),
            "running": self._running.tolist(),
            "lr": self._rate.tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state plus `transition`: step, K, U and the last codes (int8)."""
        state = super().state_dict()
        state["transition"] = {
            "step": self._step,
            "running": self._running,
            "rate": self._rate,
            "codes": self._codes,
            "changed": self._changed,
        }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both states; without the codes the first rate after a resume would be wrong."""
        if "transition" not in state_dict:
            raise ValueError(
                f"this optimizer state has no transition rates; {type(self).__name__} was not "
                "restored. It was saved by the plain optimizer: start the schedule anew instead."
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "transition"})
        state = state_dict["transition"]
        self._latent_groups = self.param_groups[-len(self._layers) :]
        self._step = state["step"]
        self._running.copy_(state["running"])
        self._rate.copy_(state["rate"])
        if state["codes"] is not None:
            device = self._rate.device
            self._codes = [codes.to(device, copy=True) for codes in state["codes"]]
            self._changed = state["changed"].to(device, copy=True)


def _split(
    params: Iterable, layers: dict, frozen: set
) -> tuple[list[dict[str, Any]], list[nn.Parameter]]:
    """Move each quantized layer's weight into a group of its own, behind all others; drop `frozen`."""
    groups = list(params)
    if groups and not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    rest, own, latent = [], [], []
    for group in groups:
        members = group["params"]
        members = [members] if isinstance(members, Tensor) else list(members)
        others = [p for p in members if p not in layers and p not in frozen]
        if others:
            rest.append({**group, "params": others})
        for weight in members:
            if weight in layers:
                own.append({**group, "params": [weight]})
                latent.append(weight)
    return rest + own, latent
