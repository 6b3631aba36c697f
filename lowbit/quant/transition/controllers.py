"""Controllers, which adapt the learning rate U to the running transition rate K.

All work on device tensors with one number per layer. `ceiling` bounds U with values known on the host;
the optimizer takes its base step at that rate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_RATIO = 10.0  # of R/K where it multiplies U: K starts at 0
PAPER_STEPS = 78_400  # of the paper's trainings on CIFAR: 400 epochs of 196 (Table S8)


@dataclass(frozen=True)
class Controller:
    """A rule for updating U.

    Attributes:
        update: (U, K, R, η, m) -> the new U.
        ceiling: (a bound on U, R, η) -> a bound on the new U.
        effective_step: whether k is the mean change of the quantized weights instead of the share of
            codes that changed, and R scales with each layer's level distance.
        scaled: whether η and m are changed to the training's length, see `scaled_constants`.
    """

    update: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
    ceiling: Callable[[float, float, float], float]
    effective_step: bool = False
    scaled: bool = False


def _additive(u: Tensor, k: Tensor, r: Tensor, eta: float, m: float) -> Tensor:
    """U = max(0, U + η (R - K)) (Eq. 11)."""
    return u.add(r - k, alpha=eta).clamp_(min=0)


def _ratio(k: Tensor, r: Tensor) -> Tensor:
    """R/K, at most `LARGEST_RATIO`; 1 until the first transition, as there is nothing to divide by."""
    return torch.where(k > 0, (r / k).clamp(max=LARGEST_RATIO), 1.0)


def _multiplicative(u: Tensor, k: Tensor, r: Tensor, eta: float, m: float) -> Tensor:
    """U = U R/K (Eq. S1)."""
    return u * _ratio(k, r)


def _averaged(u: Tensor, k: Tensor, r: Tensor, eta: float, m: float) -> Tensor:
    """U = m U + (1-m) U R/K (Eq. S2)."""
    return u.lerp(u * _ratio(k, r), 1 - m)


def _added(bound: float, r: float, eta: float) -> float:
    return bound + max(eta * r, 0.0)


def _multiplied(bound: float, r: float, eta: float) -> float:
    return bound * LARGEST_RATIO


CONTROLLERS: dict[str, Controller] = {
    "eq11": Controller(_additive, _added),
    "s1": Controller(_multiplicative, _multiplied),
    "s2": Controller(_averaged, _multiplied),
    "s3": Controller(_additive, _added, effective_step=True),
    "scaled": Controller(_additive, _added, scaled=True),
}
"""Controllers by their number in the paper (Eq. 11) and its supplement (S1-S3). With "s1" and "s2" a U
that has reached 0 stays there. "scaled" is Eq. 11, as fast relative to the training as in the paper's."""


def scaled_constants(eta: float, m: float, total_steps: int) -> tuple[float, float]:
    """Return η and m whose time constants are the same share of a training as of the paper's on CIFAR.

    K averages over 1 / (1 - m) steps, and U changes by η in 1 / |R - K| of them: both numbers of steps
    are multiplied by total_steps / `PAPER_STEPS`. K averages over one step at least.

    Example:
        >>> [round(value, 6) for value in scaled_constants(0.1, 0.99, 78_400)]
        [0.1, 0.99]
        >>> [round(value, 6) for value in scaled_constants(0.1, 0.99, 7_840)]
        [1.0, 0.9]
    """
    faster = PAPER_STEPS / total_steps
    return eta * faster, max(0.0, 1 - (1 - m) * faster)


def find_controller(name: str) -> Controller:
    """Return the controller called `name`.

    Raises:
        ValueError: no such controller.
    """
    if name not in CONTROLLERS:
        raise ValueError(
            f"controller {name!r} is unknown; no optimizer was made. "
            f"Use one of {', '.join(CONTROLLERS)}."
        )
    return CONTROLLERS[name]
