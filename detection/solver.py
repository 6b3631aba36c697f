"""The numbers of a detector's training, the same for every engine, and what is made of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lowbit.quant import target_rate
from lowbit.training import lr_schedules, optimizers

OPTIMIZERS = ("sgd", "adamw", "sgdt", "adamt", "adamwt")
"""Names of optimizers; those of `TRANSITION` schedule the transition rate of latent weights."""
TRANSITION = ("sgdt", "adamt", "adamwt")
TARGET_SCHEDULES = ("cosine", "linear", "step", "constant")


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


def build_optimizer(model: nn.Module, solver: Solver) -> Optimizer:
    """Return the optimizer, which clips gradients right before it steps if the solver says so.

    Learned quantizer scales get a tenth of the learning rate and no decay (TR supplement). Under a
    transition-rate schedule U_0 = η = lr and R_0 = λ sqrt(b_w) (TR Eq. 11, supplement S3).
    """
    rates = {"lr": solver.lr, "weight_decay": solver.weight_decay}
    schedule: dict[str, Any] | None = None
    if solver.optimizer in TRANSITION:
        schedule = {
            "model": model,
            "target": target_rate(solver.lambda_, solver.weight_bits),
            "total_steps": solver.iterations,
            "schedule": solver.target_schedule,
        }
        if solver.target_schedule == "step":
            schedule |= {"milestones": solver.target_milestones, "factor": solver.target_factor}
    optimizer = optimizers.build_optimizer(
        solver.optimizer,
        optimizers.parameter_groups(
            model,
            **rates,
            scale={"lr": solver.lr * solver.scale_lr_factor, "weight_decay": 0.0},
            norm={"weight_decay": solver.weight_decay_norm},
        ),
        **rates,
        momentum=solver.momentum,
        schedule=schedule,
    )
    if solver.clip_type is not None:
        optimizers.clip_gradients(
            optimizer, solver.clip_type, solver.clip_value, order=solver.clip_norm
        )
    return optimizer


def lr_factor(iteration: int, solver: Solver) -> float:
    """Return the learning rate of an iteration over `lr`: warm-up, then cosine or steps."""

    def decayed(time: int) -> float:
        return lr_schedules.decay_factor(
            solver.schedule,
            *(time, solver.iterations),
            milestones=solver.milestones,
            factor=solver.lr_factor,
        )

    return lr_schedules.with_warmup(
        iteration,
        decayed,
        warmup=solver.warmup_iterations,
        start=solver.warmup_factor,
        total=solver.iterations,
    )


def build_scheduler(optimizer: Optimizer, solver: Solver) -> LambdaLR:
    """Return the scheduler to step once an iteration; groups keep their ratios."""
    return LambdaLR(optimizer, lambda iteration: lr_factor(iteration, solver))


def check_milestones(key: str, schedule: str, milestones: Iterable[int], iterations: int) -> None:
    """Refuse milestones that do nothing, or that do not rise within the training.

    Args:
        key: what the user calls them, for the message.
        schedule: only "step" reads them.
        milestones: iterations.
        iterations: length of the training.
    """
    found = list(milestones)
    if (schedule == "step") != bool(found):
        raise ValueError(
            f"the schedule is {schedule!r} and {key} is {found}; nothing was trained. The schedule "
            "'step' needs the iterations it falls at, the others read none."
        )
    lr_schedules.check_milestones(found, iterations, name=key, unit="iterations")
