"""The optimizer of a quantized detector, the same for every engine: groups, rates, clipping.

Parameters have one of the four roles of `lowbit.quant.roles`; learned quantizer scales get a tenth of the
learning rate and no decay (TR supplement).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lowbit.quant import parameters_by_role, target_rate, transition

BASES = {
    "sgd": torch.optim.SGD,
    "adamw": torch.optim.AdamW,
    "sgdt": torch.optim.SGD,
    "adamt": torch.optim.Adam,
    "adamwt": torch.optim.AdamW,
}
"""Optimizers by name; those of `TRANSITION` schedule the transition rate of latent weights."""
TRANSITION = ("sgdt", "adamt", "adamwt")
SCHEDULES = ("cosine", "step")
TARGET_SCHEDULES = ("cosine", "linear", "step", "constant")
CLIP_TYPES = ("value", "norm", "full_model")


@dataclass(frozen=True)
class Solver:
    """Hold the numbers of a training.

    Attributes:
        optimizer: "sgd", "adamw", or "sgdt", "adamt", "adamwt": under transition-rate scheduling.
        lr: learning rate, and U_0 = η of a schedule.
        momentum: SGD's.
        weight_decay: as torch's optimizers have it: in the gradient, or decoupled (AdamW).
        weight_decay_norm: decay of normalization parameters.
        scale_lr_factor: learning rate of quantizer scales over `lr`.
        iterations: length of the training.
        warmup_iterations, warmup_factor: linear warm-up from `warmup_factor * lr`; see `lr_factor`.
        schedule: "cosine" falls to 0; "step" multiplies by `lr_factor` at each of `milestones`.
        lambda_: λ of the initial target rate R_0 = λ sqrt(weight bits).
        weight_bits: b_w of that formula.
        target_schedule: "cosine" or "linear" to 0, "constant", or "step", times `target_factor` at each
            of `target_milestones`.
        clip_type: None; "value" clips each number of a gradient, "norm" each parameter's gradient and
            "full_model" all of them together, by their norm of order `clip_norm`.
        clip_value: the bound.
    """

    optimizer: str
    lr: float
    iterations: int
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_norm: float = 0.0
    scale_lr_factor: float = 0.1
    warmup_iterations: int = 0
    warmup_factor: float = 0.001
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    lr_factor: float = 0.1
    lambda_: float = 1e-3
    weight_bits: int = 4
    target_schedule: str = "cosine"
    target_milestones: tuple[int, ...] = ()
    target_factor: float = 0.2
    clip_type: str | None = None
    clip_value: float = 1.0
    clip_norm: float = 2.0


def parameter_groups(model: nn.Module, solver: Solver) -> list[dict[str, Any]]:
    """Sort every trainable parameter of `model` into one param group a role; empty roles drop out.

    Each group carries its `role`, which keeps groups with equal numbers apart and is saved with the
    optimizer's state.
    """
    lr = {"scale": solver.lr * solver.scale_lr_factor}
    decay = {"scale": 0.0, "norm": solver.weight_decay_norm}
    return [
        {
            "params": members,
            "role": role,
            "lr": lr.get(role, solver.lr),
            "weight_decay": decay.get(role, solver.weight_decay),
        }
        for role, members in parameters_by_role(model).items()
        if members
    ]


def build_optimizer(model: nn.Module, solver: Solver) -> torch.optim.Optimizer:
    """Return the optimizer, which clips gradients right before it steps if the solver says so.

    Under a transition-rate schedule U_0 = η = lr and R_0 = λ sqrt(b_w) (TR Eq. 11, supplement S3).
    """
    base = BASES[solver.optimizer]
    numbers: dict[str, Any] = {"lr": solver.lr, "weight_decay": solver.weight_decay}
    if base is torch.optim.SGD:
        numbers["momentum"] = solver.momentum
    groups = parameter_groups(model, solver)
    if solver.optimizer in TRANSITION:
        if solver.target_schedule == "step":
            numbers |= {"milestones": solver.target_milestones, "factor": solver.target_factor}
        optimizer = transition(base)(
            groups,
            model=model,
            target=target_rate(solver.lambda_, solver.weight_bits),
            total_steps=solver.iterations,
            schedule=solver.target_schedule,
            **numbers,
        )
    else:
        optimizer = base(groups, **numbers)
    if solver.clip_type is not None:
        clip = _clipper(solver)
        # A hook of the step and not of the trainer: under AMP gradients are unscaled just before it.
        optimizer.register_step_pre_hook(lambda stepped, *_: clip(_gradients(stepped)))
    return optimizer


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    members = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in members if p.grad is not None]


def _clipper(solver: Solver) -> Callable[[list[Tensor]], None]:
    bound = solver.clip_value

    def by_value(grads: list[Tensor]) -> None:
        torch._foreach_clamp_min_(grads, -bound)
        torch._foreach_clamp_max_(grads, bound)

    def by_norm(grads: list[Tensor]) -> None:
        norms = torch._foreach_norm(grads, solver.clip_norm)
        if solver.clip_type == "full_model":
            norms = [torch.linalg.vector_norm(torch.stack(norms), solver.clip_norm)] * len(grads)
        # As torch.nn.utils.clip_grad_norm_: a number near 1e-6 keeps 0 from being divided by.
        torch._foreach_mul_(grads, [(bound / (norm + 1e-6)).clamp(max=1.0) for norm in norms])

    return by_value if solver.clip_type == "value" else by_norm


def lr_factor(iteration: int, solver: Solver) -> float:
    """Return the learning rate over `lr`: cosine or steps, the first part replaced by a line.

    The line runs from `warmup_factor` to where the schedule is when the warm-up ends. A warm-up as long
    as the training takes half of it: cosine has fallen to 0 where the line would end.
    """
    warmup = solver.warmup_iterations
    if warmup >= solver.iterations:
        warmup = solver.iterations // 2
    if iteration >= warmup:
        return _schedule(iteration, solver)
    end = _schedule(warmup, solver)
    return solver.warmup_factor + (end - solver.warmup_factor) * iteration / warmup


def _schedule(iteration: int, solver: Solver) -> float:
    if solver.schedule == "step":
        return solver.lr_factor ** bisect_right(solver.milestones, iteration)
    return 0.5 * (1 + math.cos(math.pi * iteration / solver.iterations))


def build_scheduler(optimizer: torch.optim.Optimizer, solver: Solver) -> LambdaLR:
    """Return the scheduler to step once an iteration; groups keep their ratios."""
    return LambdaLR(optimizer, lambda iteration: lr_factor(iteration, solver))


def check_milestones(
    key: str, schedule: str, milestones: Iterable[int], iterations: int | None = None
) -> None:
    """Refuse milestones that do nothing, or that do not rise.

    Args:
        key: what the user calls them, for the message.
        schedule: only "step" reads them.
        milestones: iterations.
        iterations: length of the training; None: not to be compared.
    """
    found = list(milestones)
    if (schedule == "step") != bool(found):
        raise ValueError(
            f"the schedule is {schedule!r} and {key} is {found}; nothing was trained. The schedule "
            "'step' needs the iterations it falls at, the others read none."
        )
    if found != sorted(set(found)) or (found and found[0] < 1):
        raise ValueError(
            f"{key} is {found}; nothing was trained. List iterations from 1 on that rise."
        )
    if found and iterations is not None and found[-1] >= iterations:
        raise ValueError(
            f"{key} ends at {found[-1]}, but the training has {iterations} iterations; nothing was "
            "trained, since the last fall would never come. Lower it, or train longer."
        )
