"""The learning rate of every step: linear warm-up, then a cosine."""

from typing import Literal

from fvcore.common.param_scheduler import CosineParamScheduler, LinearParamScheduler

Unit = Literal["epoch", "step"]


def learning_rate(
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
        epochs, warmup_epochs: of the whole run, warm-up included.
        steps: steps an epoch.
        unit: "epoch" holds the rate for an epoch (official SSQL), "step" changes it every step.

    Example:
        >>> [learning_rate(e, 0, lr=1.0, epochs=4, warmup_epochs=2, steps=9, unit="epoch")
        ...  for e in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    time, tick = (epoch, 1.0) if unit == "epoch" else (epoch + step / steps, 1 / steps)
    if time < warmup_epochs:
        return LinearParamScheduler(0.0, lr)((time + tick) / warmup_epochs)
    return CosineParamScheduler(lr, 0.0)((time - warmup_epochs) / (epochs - warmup_epochs))
