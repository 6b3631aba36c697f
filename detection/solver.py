"""A detector's training settings for every engine, and its optimizer and schedule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lowbit.quant import target_rate
from lowbit.training import lr_schedules, optimizers
from lowbit.training.oscillation_control import Oscillation, control_oscillation

OPTIMIZERS = ("sgd", "adamw", "sgdt", "adamt", "adamwt")
"""Optimizer names; those in `TRANSITION` schedule the transition rate of latent weights."""
TRANSITION = ("sgdt", "adamt", "adamwt")
TARGET_SCHEDULES = ("cosine", "linear", "step", "constant")


@dataclass(frozen=True)
class Solver:
    """Training settings.

    Attributes:
        optimizer: "sgd", "adamw", or with transition-rate scheduling "sgdt", "adamt", "adamwt".
        lr: learning rate, and U_0 = η of a schedule.
        momentum: momentum of SGD.
        weight_decay: as torch's optimizers have it: in the gradient, or decoupled (AdamW).
        weight_decay_norm: decay of normalization parameters.
        scale_lr_factor: learning rate of quantizer scales over `lr`; None: the quantizer's, 1 for LSQ
            and LSQ+, 0.1 for the others.
        iterations: number of training iterations.
        warmup_iterations, warmup_factor: linear warm-up from `warmup_factor * lr`; see `lr_factor`.
        schedule: "cosine" decays to `lr_end`; "step" multiplies by `lr_factor` at each of `milestones`.
        lambda_: λ of the initial target rate R_0 = λ sqrt(weight bits).
        weight_bits: b_w in this formula.
        target_schedule: "cosine" or "linear" to 0, "constant", or "step": times `target_factor` at each
            of `target_milestones`.
        oscillation: how oscillating weights are dampened or frozen, if they are.
        clip_type: None; "value" clips each number of a gradient, "norm" each parameter's gradient and
            "full_model" all of them together, by their norm of order `clip_norm`.
        clip_value: the clipping bound.
    """

    optimizer: str
    lr: float
    iterations: int
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_norm: float = 0.0
    scale_lr_factor: float | None = None
    warmup_iterations: int = 0
    warmup_factor: float = 0.001
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    lr_factor: float = 0.1
    lr_end: float = 0.0
    lambda_: float = 1e-3
    weight_bits: int = 4
    target_schedule: str = "cosine"
    target_milestones: tuple[int, ...] = ()
    target_factor: float = 0.2
    oscillation: Oscillation | None = None
    clip_type: str | None = None
    clip_value: float = 1.0
    clip_norm: float = 2.0


def build_optimizer(model: nn.Module, solver: Solver) -> Optimizer:
    """Return the optimizer; if the solver clips gradients, it does so right before each step.

    Learned quantizer scales have a learning rate of their own and no decay (TR supplement). With a
    transition-rate schedule U_0 = η = lr and R_0 = λ sqrt(b_w) (TR Eq. 11, supplement S3).
    """
    rates = {"lr": solver.lr, "weight_decay": solver.weight_decay}
    factor = solver.scale_lr_factor
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
            scale=optimizers.scale_settings(None if factor is None else solver.lr * factor, 0.0),
            norm={"weight_decay": solver.weight_decay_norm},
        ),
        **rates,
        momentum=solver.momentum,
        schedule=schedule,
    )
    if solver.oscillation is not None:
        control_oscillation(optimizer, model, solver.oscillation, total_steps=solver.iterations)
    if solver.clip_type is not None:
        optimizers.clip_gradients(
            optimizer, solver.clip_type, solver.clip_value, order=solver.clip_norm
        )
    return optimizer


def lr_factor(iteration: int, solver: Solver) -> float:
    """Return the learning rate of an iteration over `lr`: warm-up, then cosine or steps."""

    end = solver.lr_end / solver.lr if solver.schedule == "cosine" else 0.0

    def decayed(time: int) -> float:
        return end + (1 - end) * lr_schedules.decay_factor(
            solver.schedule,
            time,
            solver.iterations,
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
    """Return the scheduler, stepped once per iteration; parameter groups keep their ratios."""
    return LambdaLR(optimizer, lambda iteration: lr_factor(iteration, solver))


def check_milestones(key: str, schedule: str, milestones: Iterable[int], iterations: int) -> None:
    """Refuse milestones that have no effect, or are not increasing within the training.

    Args:
        key: the user's name for them, for the message.
        schedule: only "step" uses them.
        milestones: iterations.
        iterations: number of training iterations.
    """
    found = list(milestones)
    if (schedule == "step") != bool(found):
        raise ValueError(
            f"the schedule is {schedule!r} and {key} is {found}; nothing was trained. The schedule "
            "'step' needs the iterations of its drops; the others use none."
        )
    lr_schedules.check_milestones(found, iterations, name=key, unit="iterations")
