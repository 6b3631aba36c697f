"""Transition-rate scheduling: optimizers that control how often quantized weights change level.

A transition is a change of a weight's integer code from one step to the next. Each quantized layer
has its own adaptive learning rate U, moved so that its running transition rate K follows a target R
that decays to zero (Lee et al., "Scheduling weight transitions for quantization-aware training",
Eqs. 5 and 10-12, Algorithm 1):

    k = mean(code_t != code_{t-1})        transition rate of the layer, 0 at the first step
    K = m K + (1-m) k                     running rate, K_0 = 0
    U = max(0, U + η (R - K))             adaptive learning rate, U_0 = η
    w = w - U g                           in place of the layer's learning rate

`t_variant(SGD)` is SGDT, `t_variant(AdamW)` is AdamWT. All layers step together
(`lowbit.quant.transition.shared_step`), which needs a step that is linear in the learning rate; whether
an optimizer's is, is tested (`lowbit.quant.transition.linear_in_lr`). SGD with momentum has a faster
path (`lowbit.quant.transition.sgd_step`).
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn, optim

from lowbit.quant.convert import quantized_layers
from lowbit.quant.transition import sgd_step
from lowbit.quant.transition.codes import Codes
from lowbit.quant.transition.controllers import find_controller, scaled_constants
from lowbit.quant.transition.linear_in_lr import why_not_linear
from lowbit.quant.transition.natural_rate import NaturalRate
from lowbit.quant.transition.shared_step import shared_step
from lowbit.quant.transition.target_rate import TargetSchedule

SCOPES = ("layer", "global")
DECAYS = ("adaptive", "base")
HIGHEST = 1024  # B is at most this times U_0: a much larger step would lose precision


@cache
def t_variant(base: type[optim.Optimizer]) -> type[optim.Optimizer]:
    """Return the transition-rate variant of a torch optimizer.

    Raises:
        ValueError: the optimizer's step is not linear in its learning rate.

    Example:
        >>> SGDT = t_variant(torch.optim.SGD)
        >>> SGDT.__name__
        'SGDT'
    """
    _check_linear(base)
    attributes = {"__doc__": _Transition.__doc__, "_base": base}
    return type(f"{base.__name__}T", (_Transition, base), attributes)


def _check_linear(base: type[optim.Optimizer], **options: Any) -> None:
    if (reason := why_not_linear(base, **options)) is not None:
        raise ValueError(
            f"{base.__name__} has no transition-rate variant: {reason}; no optimizer was made. The "
            "step must be linear in its learning rate, as those of SGD, Adam and AdamW are."
        )


class _Transition:
    """A torch optimizer whose learning rate of each quantized layer follows a target transition rate.

    The base optimizer steps all parameters other than quantized layers' weights as usual. The
    scales of scheduled weights stay frozen: moving one would move every transition point. A step does
    not wait for the device. A scheduler's learning rate affects only the other parameters.

    Args:
        params: as for the base optimizer.
        model: the quantized model the weights belong to.
        lr: learning rate of everything else, and U_0 of groups that set none.
        target: initial target rate R_0, see `target_rate`; None: the plain optimizer's own rate, measured
            in the first twentieth of the steps, which are taken at U_0 (`NaturalRate`).
        total_steps: steps over which the target falls.
        schedule: "cosine", "linear", "step" or "constant", see `TargetSchedule`.
        final_target: where the target ends.
        milestones, factor: steps at which the "step" schedule multiplies the target, and by what.
        controller: "eq11"; "s1", "s2" or "s3" of the paper's supplement, or "scaled", see
            `lowbit.quant.transition.controllers`.
        scope: "layer", or "global": one k over all layers' weights, and with it one K and U.
        eta: step of the controller η; `lr` if None.
        momentum_k: m, weight of the past in the running rate.
        highest: U is at most this many times U_0, so that it cannot wind up where the target is above
            the rate that a layer can have; None: no bound, as in the paper.
        decay: factor of decoupled weight decay (AdamW): "adaptive" is U, as in the paper's
            equations; "base" the group's learning rate, which can cause transitions at U = 0.
        **kwargs: the base optimizer's.
    """

    _base: type[optim.Optimizer]

    def __init__(
        self,
        params: Iterable,
        *,
        model: nn.Module,
        lr: float,
        target: float | None,
        total_steps: int,
        schedule: str = "cosine",
        final_target: float = 0.0,
        milestones: Sequence[int] = (),
        factor: float = 0.2,
        controller: str = "eq11",
        scope: str = "layer",
        eta: float | None = None,
        momentum_k: float = 0.99,
        highest: float | None = None,
        decay: str = "adaptive",
        **kwargs: Any,
    ) -> None:
        _one_of("scope", scope, SCOPES)
        _one_of("decay", decay, DECAYS)
        _check_linear(self._base, **kwargs)
        self.target, self.highest = target, highest
        self._natural = NaturalRate(total_steps) if target is None else None
        self.schedule = TargetSchedule(
            total_steps, schedule, final_target, tuple(milestones), factor
        )
        self.controller = find_controller(controller)
        layers = {layer.weight: (n, layer) for n, layer in quantized_layers(model).items()}
        frozen = {s for _, layer in layers.values() for s in layer.w_quant.parameters()}
        groups, latent = _split(params, layers, frozen, lr)
        if not latent:
            raise ValueError(
                "none of the given parameters belongs to a quantized layer; no optimizer was made. Call "
                "lowbit.quant.quantize(model, ...) first, and pass the model's own parameters."
            )
        super().__init__(groups, lr=lr, **kwargs)
        # Otherwise a gradient scaler would call step() on infinite gradients and let the kernel
        # skip them, unnoticed by K and U.
        self._step_supports_amp_scaling = False
        self.eta, self.momentum_k = float(lr) if eta is None else eta, momentum_k
        if self.controller.scaled:
            self.eta, self.momentum_k = scaled_constants(self.eta, momentum_k, total_steps)
        self.scope, self.decay = scope, decay
        self._codes = Codes(dict(layers[weight] for weight in latent))
        for layer in self._codes.layers:
            layer.w_quant.requires_grad_(False)
        self._step = 0
        starts = [g["start_rate"] for g in self._latent_groups() for _ in g["params"]]
        self._rate = torch.tensor(starts, dtype=torch.float64, device=latent[0].device)  # U
        self._start_rate = self._rate.clone()  # U_0
        self._running = torch.zeros_like(self._rate)  # K
        self._distances: Tensor | None = None  # of one transition, if effective steps are used

    def _latent_groups(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if "start_rate" in group]

    def _target(self, step: int) -> float:
        """Return R of a step; while the natural rate is measured, its R_0 so far."""
        if self.target is None:
            return float(self._natural.total) / max(step, 1)
        return self.schedule.at(step, self.target)

    @torch.no_grad()
    def step(self, closure=None):
        """Set each layer's U, then step the base optimizer.

        Transitions are counted after the step, from the new weights. A step that a gradient
        scaler skips is not seen here, so it changes neither K nor U.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._codes.stale:
            self._codes.start()
            self._distances = self._codes.distances()
        self._control()
        if self._is_fused():
            sgd_step.fused_step(self, self._codes, self._rate)
        elif sgd_step.applies_to(self, self._codes):
            sgd_step.batched_step(self, self._codes, self._rate)
        else:
            shared_step(self, self._codes, self._rate)
        return loss

    def _control(self) -> None:
        """Update K and U from the code changes of the last step."""
        codes, k = self._codes, self._codes.changed
        if self.controller.effective_step:
            k = codes.effective_steps(self._distances) * codes.numel
        if self.scope == "global":
            k = (k.sum() / codes.numel.sum()).expand_as(k)
        else:
            k = k / codes.numel
        self._running.lerp_(k, 1 - self.momentum_k)
        if self.target is None and self._step > 0:
            self.target = self._natural.measure(codes, self._step)
        if self.target is not None:
            self._adapt(self._target(self._step))
        self._step += 1

    def _adapt(self, r: float) -> None:
        """Update U, and its bound B, towards the target R."""
        codes, target = self._codes, torch.full_like(self._rate, r)
        if self.controller.effective_step:
            target *= self._distances
        if self.scope == "global":
            target = ((target * codes.numel).sum() / codes.numel.sum()).expand_as(target)
        self._rate = self.controller.update(
            self._rate, self._running, target, self.eta, self.momentum_k
        )
        if self.highest is not None:
            self._rate = self._rate.minimum(self.highest * self._start_rate)
        for group in self._latent_groups():
            highest = self.controller.ceiling(group["ceiling"], r, self.eta)
            group["ceiling"] = min(highest, (self.highest or HIGHEST) * group["start_rate"])

    def _is_fused(self) -> bool:
        """Whether SGD's one-pass kernel is used."""
        return sgd_step.applies_to(self, self._codes, in_one_kernel=True)

    def base_step(self) -> None:
        """Step as the base optimizer does, without the hooks, which belong to the whole step."""
        step = self._base.step
        step = step.__wrapped__ if getattr(step, "hooked", False) else step
        step(self)

    def rates(self) -> dict[str, Any]:
        """Return the target and, for each quantized layer, what the controller sees and sets.

        Reads from the device; call it when logging, not in every step.

        Returns:
            target: R of the last step.
            names: of the layers, in the order of the lists below.
            rate: k, the share of codes changed by the last step.
            running: K.
            lr: U.
            effective_step: mean |w_q^t - w_q^(t-1)| of the last step.
        """
        codes = self._codes
        return {
            "target": self._target(max(self._step - 1, 0)),
            "names": list(codes.names),
            "rate": (codes.changed / codes.numel).tolist(),
            "running": self._running.tolist(),
            "lr": self._rate.tolist(),
            "effective_step": (
                [0.0] * len(codes.names)
                if codes.stale
                else codes.effective_steps(codes.distances()).tolist()
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state plus `transition`: step, K, U and the last codes (int8)."""
        state = super().state_dict()
        state["transition"] = {"step": self._step, "running": self._running, "rate": self._rate}
        if self._natural is not None:
            state["transition"] |= {"target": self.target, "natural": self._natural.total}
        if not self._codes.stale:
            state["transition"] |= self._codes.state_dict()
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
        self._step = state["step"]
        self._running.copy_(state["running"])
        self._rate.copy_(state["rate"])
        if self._natural is not None:
            self.target, self._natural.total = state["target"], state["natural"]
        if "codes" in state:
            self._codes.load_state_dict(state)
            self._distances = self._codes.distances()


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} {value!r} is unknown; no optimizer was made. Use one of {', '.join(allowed)}."
        )


def _split(
    params: Iterable, layers: dict, frozen: set, lr: float
) -> tuple[list[dict[str, Any]], list[nn.Parameter]]:
    """Move each group's quantized-layer weights into a group after all others; drop `frozen`.

    A latent group carries U_0 (`start_rate`) and B (`ceiling`), which are saved with the state.
    """
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
        weights = [p for p in members if p in layers]
        if weights:
            start = float(group.get("lr", lr))
            own.append({**group, "params": weights, "start_rate": start, "ceiling": start})
            latent += weights
    return rest + own, latent
