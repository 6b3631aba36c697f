"""Block swapping: the teacher's bit-width computes some blocks of a student's pass (CoQuant, SPEC D.3)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lowbit.quant.adaptive.switching import SwitchableNorm
from lowbit.quant.convert import set_precision
from lowbit.quant.layers import Switchable, WeightQuantized
from lowbit.quant.policies.rule import TARGET
from lowbit.quant.precision import Precision

_LISTS = (nn.Sequential, nn.ModuleList)
DEPTHS = ("linear", "uniform")


def swap_units(model: nn.Module) -> list[nn.ModuleList]:
    """Return a network's swappable units, each a list of modules that switch together.

    They are its residual blocks: composite items of a list (a stage) that contain a quantized layer,
    innermost ones only. A stem whose bits follow the precision is, with its norm, the first unit.
    """
    blocks = list(_blocks(model))
    if not blocks:
        return []
    stem = []
    for module in model.modules():
        if module is blocks[0]:
            break
        if isinstance(module, Switchable):
            stem.append(module)
    follows = any(isinstance(m, WeightQuantized) and m.rule.weight == TARGET for m in stem)
    units = [nn.ModuleList(stem)] if follows else []
    return units + [nn.ModuleList([block]) for block in blocks]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        within = list(_blocks(child))
        if within:
            yield from within
        elif isinstance(module, _LISTS) and _is_composite(child):
            yield child


def _is_composite(module: nn.Module) -> bool:
    if isinstance(module, (*_LISTS, WeightQuantized)):
        return False
    return any(isinstance(m, WeightQuantized) for m in module.modules())


def student_probabilities(
    p: float, *, units: int, progress: float, depth: str = "linear"
) -> torch.Tensor:
    """Return each unit's probability p_l, (L,), of being computed by the student itself.

    p_1 rises linearly from `p` to 1 over the training; p_l rises from p_1 at the first unit to 1 at
    the last (`linear`), or is p_1 everywhere (`uniform`).

    Args:
        p: p_1 at the start.
        units: L.
        progress: completed share of the training, 0 to 1.
        depth: "linear" or "uniform".

    Example:
        >>> student_probabilities(0.5, units=3, progress=0.0).tolist()
        [0.5, 0.75, 1.0]
        >>> student_probabilities(0.5, units=3, progress=0.5, depth="uniform").tolist()
        [0.75, 0.75, 0.75]
    """
    first = p + (1 - p) * progress
    if depth == "uniform" or units == 1:
        return torch.full((units,), first)
    return first + (1 - first) * torch.arange(units) / (units - 1)


@contextmanager
def student_pass(
    model: nn.Module, bits: int, *, swapped: Sequence[nn.Module] = (), teacher: int | None = None
) -> Iterator[None]:
    """Set the network to `bits`, but the units in `swapped` to the teacher's bits, within the block.

    A swapped unit uses the teacher's weights, clips and norms, whose running statistics are not
    updated: only the teacher's own passes do that. Gradient flows through all of them.
    """
    set_precision(model, Precision(bits, bits))
    borrowed = []
    for unit in swapped:
        set_precision(unit, Precision(teacher, teacher))
        borrowed += [m for m in unit.modules() if isinstance(m, SwitchableNorm)]
    tracking = [norm.track_running_stats for norm in borrowed]
    for norm in borrowed:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, before in zip(borrowed, tracking, strict=True):
            norm.track_running_stats = before
