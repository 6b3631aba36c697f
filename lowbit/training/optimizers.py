"""Optimizers by name, parameter groups by role, and gradient clipping.

Each torch optimizer has a t-variant with transition-rate scheduling (`lowbit.quant.transition`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowbit.quant import parameters_by_role, scales_by_lr_factor, t_variant
from lowbit.training.lars import LARC, LARS

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lars": LARS,
    "larc": LARC,
}
LAYERWISE = ("lars", "larc")  # whose step is not linear in the learning rate
T_VARIANTS = {f"{name}t": base for name, base in OPTIMIZERS.items() if name not in LAYERWISE}
CLIP_TYPES = ("value", "norm", "full_model")

_BETA2 = 0.999  # torch's default, and MoCo v3's
_OWN = {  # options that only some accept
    "sgd": ("momentum", "nesterov", "fused"),
    "rmsprop": ("momentum",),
    "lars": ("momentum",),
    "larc": ("momentum",),
    "adamw": ("betas", "fused"),
}

Group = dict[str, Any]


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, **roles: Mapping[str, float]
) -> list[Group]:
    """Return all trainable parameters of a model, one group per role (`lowbit.quant.roles`).

    Each group carries its `role`, which keeps groups with equal numbers apart and is saved with the
    optimizer's state. Empty roles are omitted.

    Quantizer scales have the learning rate their quantizer asks for, `lr` times its factor, one group
    per factor.

    Args:
        roles: settings that override these, such as scale={"lr": 0.01, "weight_decay": 0.0}.
    """
    groups = []
    for role, members in parameters_by_role(model).items():
        settings = {"lr": lr, "weight_decay": weight_decay, **roles.get(role, {})}
        if role == "scale" and "lr" not in roles.get(role, {}):
            for factor, part in scales_by_lr_factor(model).items():
                groups.append({"params": part, "role": role, **settings, "lr": lr * factor})
        elif members:
            groups.append({"params": members, "role": role, **settings})
    return groups


def scale_settings(lr: float | None, weight_decay: float) -> dict[str, float]:
    """Return the settings of quantizer scales; a rate of None leaves it to each quantizer."""
    return {"weight_decay": weight_decay} | ({} if lr is None else {"lr": lr})


def groups_with_constant(model: nn.Module, constant: nn.Module | None) -> list[Group]:
    """Return all trainable parameters of a model, grouping a constant-rate part separately.

    A group's `scheduled` is whether its rate follows the schedule.

    Args:
        constant: a part of `model`, such as SimSiam's predictor.
    """
    kept = set(constant.parameters()) if constant is not None else set()
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trainable if p not in kept], "scheduled": True}]
    if kept:
        groups.append({"params": [p for p in trainable if p in kept], "scheduled": False})
    return groups


def build_optimizer(
    name: str,
    groups: list[Group],
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    beta1: float | None = None,
    fused: bool = False,
    schedule: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Build an optimizer; momentum, Nesterov, beta1 and fused are ignored where unsupported.

    Args:
        name: in `OPTIMIZERS`, or in `T_VARIANTS`.
        groups: parameter groups.
        lr, weight_decay: for groups that set none.
        momentum, nesterov: of SGD, RMSprop, LARS and LARC.
        beta1: of AdamW; defaults to torch's.
        fused: one kernel for all tensors, of SGD and AdamW (measured on a CPU: 28 ms a step against
            73 for ResNet-50).
        schedule: of a t-variant: `model`, `target`, `total_steps`, and what else
            `lowbit.quant.t_variant` takes.
    """
    base = name if name in OPTIMIZERS else name.removesuffix("t")
    given: Group = {"momentum": momentum, "nesterov": nesterov}
    if beta1 is not None:
        given["betas"] = (beta1, _BETA2)
    if fused:
        given["fused"] = True
    options = {key: value for key, value in given.items() if key in _OWN.get(base, ())}
    options |= {"lr": lr, "weight_decay": weight_decay}
    if name in OPTIMIZERS:
        return OPTIMIZERS[name](groups, **options)
    return t_variant(T_VARIANTS[name])(groups, **options, **(schedule or {}))


def clip_gradients(optimizer: Optimizer, kind: str, bound: float, *, order: float = 2.0) -> None:
    """Make an optimizer clip gradients right before each step, when AMP has unscaled them.

    Args:
        kind: "value" clips each number of a gradient, "norm" each parameter's gradient and
            "full_model" all of them together, by their norm.
        bound: largest value or norm.
        order: of the norm.
    """
    clip = _clipper(kind, bound, order)
    optimizer.register_step_pre_hook(lambda stepped, *_: clip(_gradients(stepped)))


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    members = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in members if p.grad is not None]


def _clipper(kind: str, bound: float, order: float) -> Callable[[list[Tensor]], None]:
    def by_value(grads: list[Tensor]) -> None:
        torch._foreach_clamp_min_(grads, -bound)
        torch._foreach_clamp_max_(grads, bound)

    def by_norm(grads: list[Tensor]) -> None:
        norms = torch._foreach_norm(grads, order)
        if kind == "full_model":
            norms = [torch.linalg.vector_norm(torch.stack(norms), order)] * len(grads)
        # As torch.nn.utils.clip_grad_norm_: a number near 1e-6 keeps 0 from being divided by.
        torch._foreach_mul_(grads, [(bound / (norm + 1e-6)).clamp(max=1.0) for norm in norms])

    return by_value if kind == "value" else by_norm
