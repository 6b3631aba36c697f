"""The optimizer of a quantized detector, the same for every engine: groups, SGD or SGDT, cosine.

Parameters have one of the four roles of `quant.roles`; learned quantizer scales get a tenth of the
learning rate and no decay (TR supplement).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from quant import parameters_by_role, target_rate, transition


@dataclass(frozen=True)
class Solver:
    """Hold the numbers of a training.

    Attributes:
        optimizer: "sgd", or "sgdt" (SGD under transition-rate scheduling).
        lr: learning rate, and SGDT's U_0 = η.
        momentum, weight_decay: as torch's SGD.
        weight_decay_norm: decay of normalization parameters.
        scale_lr_factor: learning rate of quantizer scales over `lr`.
        iterations: length of the training; the cosine and the target rate fall to 0 over it.
        warmup_iterations, warmup_factor: linear warm-up from `warmup_factor * lr`.
        lambda_: λ of SGDT's initial target rate R_0 = λ sqrt(weight bits).
        weight_bits: b_w of that formula.
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
    lambda_: float = 1e-3
    weight_bits: int = 4


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
    """Return SGD, or SGDT with U_0 = η = lr and R_0 = λ sqrt(b_w) (TR Eq. 11, supplement S3)."""
    groups = parameter_groups(model, solver)
    numbers = {"lr": solver.lr, "momentum": solver.momentum, "weight_decay": solver.weight_decay}
    if solver.optimizer == "sgd":
        return torch.optim.SGD(groups, **numbers)
    return transition(torch.optim.SGD)(
        groups,
        model=model,
        target=target_rate(solver.lambda_, solver.weight_bits),
        total_steps=solver.iterations,
        **numbers,
    )


def lr_factor(iteration: int, solver: Solver) -> float:
    """Return the learning rate over `lr`: a cosine to 0, its first part replaced by a straight line.

    The line runs from `warmup_factor` to where the cosine is when the warm-up ends.
    """
    warmup = min(solver.warmup_iterations, solver.iterations)
    if iteration >= warmup:
        return 0.5 * (1 + math.cos(math.pi * iteration / solver.iterations))
    end = 0.5 * (1 + math.cos(math.pi * warmup / solver.iterations))
    return solver.warmup_factor + (end - solver.warmup_factor) * iteration / warmup


def build_scheduler(optimizer: torch.optim.Optimizer, solver: Solver) -> LambdaLR:
    """Return the scheduler to step once an iteration; groups keep their ratios."""
    return LambdaLR(optimizer, lambda iteration: lr_factor(iteration, solver))
