"""Test whether an optimizer's step is linear in its learning rate."""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn, optim

_RATES = (1e-3, 1.0)  # small and large: a step may be clipped or follow its own schedule
_STEPS = 4  # momentum, bias correction and step counts are active after the first


# These affect how a step is executed, not its result; some need a GPU.
_EXECUTION = frozenset({"foreach", "fused", "capturable", "differentiable"})


def why_not_linear(base: type[optim.Optimizer], **options: Any) -> str | None:
    """Return why `base` with `options` has no transition-rate variant, or None if it has one.

    From each of a few states of a small problem, a step at twice the learning rate must lead twice as
    far and leave the same optimizer state. Then using U as the learning rate scales exactly the
    step, and no past rate remains in a momentum buffer.

    Example:
        >>> why_not_linear(torch.optim.SGD) is None
        True
        >>> why_not_linear(torch.optim.Rprop)
        'it keeps the learning rate in its state'
    """
    options = {key: value for key, value in options.items() if key not in _EXECUTION}
    return _reason(base, tuple(sorted(options.items())))


@cache
def _reason(base: type[optim.Optimizer], options: tuple[tuple[str, Any], ...]) -> str | None:
    try:
        reasons = (_probe(base, lr, dict(options)) for lr in _RATES)
        return next((reason for reason in reasons if reason is not None), None)
    except Exception as error:  # any exception means that the optimizer cannot be driven
        return f"it cannot take a plain step ({type(error).__name__}: {error})"


def _probe(base: type[optim.Optimizer], lr: float, options: dict[str, Any]) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    optimizer = _build(base, weight, lr, options)
    for _ in range(_STEPS):
        weight.grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        (once, state), (twice, other) = (_step(weight, optimizer, lr, f) for f in (1, 2))
        if not torch.allclose(twice, 2 * once, rtol=1e-6, atol=1e-12):
            return "its step is not linear in its learning rate"
        if not _alike(state, other):
            return "it keeps the learning rate in its state"
        optimizer.step()
    return None


def _build(
    base: type[optim.Optimizer], weight: nn.Parameter, lr: float, options: dict[str, Any]
) -> optim.Optimizer:
    """Build the optimizer with momentum and decay if it has them, as they could hide a learning rate."""
    accepted = base([weight], lr=lr, **options).defaults
    wanted = {"momentum": 0.9, "weight_decay": 0.1}
    known = {key: value for key, value in wanted.items() if key in accepted}
    return base([weight], lr=lr, **known | options)


def _step(
    weight: nn.Parameter, optimizer: optim.Optimizer, lr: float, factor: int
) -> tuple[Tensor, dict]:
    """Take a step at `factor` times the learning rate on a copy; return its weights and state."""
    memo: dict[int, Any] = {}
    twin, stepper = copy.deepcopy((weight, optimizer), memo)
    twin.grad = weight.grad.clone()
    for group in stepper.param_groups:
        group["lr"] = lr * factor
    stepper.step()
    return twin.detach() - weight.detach(), stepper.state_dict()["state"]


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Tensor):
        return torch.allclose(a, b, rtol=1e-9, atol=0)
    return a == b
