"""Learning-rate schedules: decay, warm-up, and milestones.

fvcore's schedulers take the completed share of training. Where that would change the last bit of
a rate (pi (t/T) for (pi t)/T, or a milestone recomputed from a share), the formula is written out.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

from fvcore.common.param_scheduler import CosineParamScheduler, LinearParamScheduler

SCHEDULES = ("cosine", "linear", "step")
Unit = Literal["epoch", "step"]


def decay_factor(
    schedule: str, time: int, total: int, *, milestones: Sequence[int] = (), factor: float = 0.1
) -> float:
    """Return the ratio of the rate at time t to the initial rate.

    `step`: factor^{#milestones <= t}. `cosine`: (1 + cos(pi t / T)) / 2. `linear`: 1 - t / T.

    Args:
        schedule: one of `SCHEDULES`.
        time, total: t of T, in epochs or iterations, counted from 0.
        milestones: rising times of `step`.
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * time / total))
    if schedule == "linear":
        return LinearParamScheduler(1.0, 0.0)(time / total)
    return factor ** bisect_right(milestones, time)


def learning_rate(
    epoch: int,
    epochs: int,
    *,
    lr: float,
    schedule: str = "step",
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """Return the rate of an epoch, counted from 0, without warm-up.

    `step` is SSQL's code (SPEC A.8), `cosine` Contrastive Quant's CIFAR-100 protocol (SPEC B.4),
    `linear` ReActNet on ImageNet (SPEC C.6); see `decay_factor`.

    Example:
        >>> [learning_rate(e, 100, lr=30.0, milestones=(60, 80)) for e in (0, 59, 60)]
        [30.0, 30.0, 3.0]
    """
    return lr * decay_factor(schedule, epoch, epochs, milestones=milestones, factor=gamma)


def warmup_cosine(
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
        epochs, warmup_epochs: total epochs, warm-up included, and those of the warm-up.
        steps: steps per epoch.
        unit: "epoch" holds the rate for an epoch (official SSQL), "step" changes it every step.

    Example:
        >>> [warmup_cosine(e, 0, lr=1.0, epochs=4, warmup_epochs=2, steps=9, unit="epoch")
        ...  for e in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    time, tick = (epoch, 1.0) if unit == "epoch" else (epoch + step / steps, 1 / steps)
    if time < warmup_epochs:
        return LinearParamScheduler(0.0, lr)((time + tick) / warmup_epochs)
    return CosineParamScheduler(lr, 0.0)((time - warmup_epochs) / (epochs - warmup_epochs))


def with_warmup(
    iteration: int, factor: Callable[[int], float], *, warmup: int, start: float, total: int
) -> float:
    """Return the rate's factor with linear warm-up, as in Detectron2's schedulers.

    The line runs from `start` to the schedule's value where it ends. A warm-up as long as the
    training is cut to half of it, since a cosine is 0 where the line would end.

    Args:
        iteration: counted from 0.
        factor: maps an iteration to the factor without warm-up.
        warmup: iterations of the line.
        total: iterations of the training.
    """
    if warmup >= total:
        warmup = total // 2
    if iteration >= warmup:
        return factor(iteration)
    return start + (factor(warmup) - start) * iteration / warmup


def default_milestones(epochs: int) -> tuple[int, ...]:
    """Return 60 % and 80 % of the epochs: 60, 80 of 100 (linear) and 30, 40 of 50 (finetune, A.8).

    Example:
        >>> default_milestones(100), default_milestones(50), default_milestones(2)
        ((60, 80), (30, 40), (1,))
    """
    decays = {round(0.6 * epochs), round(0.8 * epochs)}
    return tuple(sorted(epoch for epoch in decays if 0 < epoch < epochs))


def check_milestones(
    milestones: Sequence[int], total: int, *, name: str = "milestones", unit: str = "epochs"
) -> None:
    """Raise ValueError unless milestones increase and lie within the training."""
    found = list(milestones)
    if found != sorted(set(found)) or any(not 0 < milestone < total for milestone in found):
        raise ValueError(
            f"{name} {found} do not increase within 1..{total - 1}; nothing was trained. A decay at or "
            f"after the last of {total} {unit} would never happen: change {name}, or omit it."
        )
