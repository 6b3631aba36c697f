"""The learning rate of an epoch, and the milestones at which it decays."""

import math
from collections.abc import Sequence


def default_milestones(epochs: int) -> tuple[int, ...]:
    """Return 60 % and 80 % of the epochs: 60, 80 of 100 (linear) and 30, 40 of 50 (finetune, A.8).

    Example:
        >>> default_milestones(100), default_milestones(50), default_milestones(2)
        ((60, 80), (30, 40), (1,))
    """
    decays = {round(0.6 * epochs), round(0.8 * epochs)}
    return tuple(sorted(epoch for epoch in decays if 0 < epoch < epochs))


def learning_rate(
    epoch: int,
    epochs: int,
    *,
    lr: float,
    schedule: str = "step",
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """Return the rate of an epoch, counted from 0.

    `step`: lr * gamma^{#milestones <= epoch} (SSQL's code, SPEC A.8). `cosine`:
    lr * (1 + cos(pi epoch / epochs)) / 2 (Contrastive Quant's CIFAR-100 protocol, SPEC B.4).
    `linear`: lr * (1 - epoch / epochs) (ReActNet on ImageNet, SPEC C.6).

    Example:
        >>> [learning_rate(e, 100, lr=30.0, milestones=(60, 80)) for e in (0, 59, 60)]
        [30.0, 30.0, 3.0]
    """
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "linear":
        return lr * (1 - epoch / epochs)
    return lr * gamma ** sum(milestone <= epoch for milestone in milestones)


def check_milestones(milestones: Sequence[int], epochs: int, *, name: str = "milestones") -> None:
    """Raise ValueError unless decays rise within the epochs."""
    if list(milestones) != sorted(set(milestones)) or any(
        not 0 < milestone < epochs for milestone in milestones
    ):
        raise ValueError(
            f"{name} {list(milestones)} do not rise within 1..{epochs - 1}; nothing was "
            f"trained. A decay at or after the last of {epochs} epochs would never happen: change "
            f"{name}, or leave them out for the default."
        )
