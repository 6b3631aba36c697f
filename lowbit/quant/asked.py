"""Fail where a quantizer is listed but a forward pass goes by it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lowbit.quant.layers import Quantized


@contextmanager
def require_asked(model: nn.Module) -> Iterator[None]:
    """Fail unless each quantizer that is on, or observes, is asked at least once within the block.

    Nothing is left in the way of a quantizer after its first call, so a block may hold a whole
    evaluation. A quantizer of a weight counts as asked when its layer takes the weight.

    Raises:
        ValueError: a quantizer was not asked; the message names its layer.

    Example:
        >>> import torch
        >>> from lowbit.quant import Precision, quantize
        >>> net = quantize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), "dorefa")
        >>> with require_asked(net):  # at full precision nothing is on
        ...     pass
    """
    waiting: dict[tuple[nn.Module, str], str] = {}
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            if _is_on(module.w_quant):
                waiting[module, "quantized_weight"] = name
            if _is_on(module.a_quant):
                waiting[module.a_quant, "forward"] = name
    total = len({*waiting.values()})
    for owner, method in waiting:
        owner.__dict__[method] = _once(waiting, owner, method)
    try:
        yield
        idle = list(dict.fromkeys(waiting.values()))
    finally:
        for owner, method in list(waiting):
            _restore(owner, method)
    if idle:
        raise ValueError(
            f"{len(idle)} of {total} layers listed as quantized were passed by ({_few(idle)}): their "
            "quantizers got no tensor, so the network computes them in full precision or does not use "
            "them; they have no range, and nothing was scored. Keep them in full precision by a rule of "
            f'the policy ({{"{_pattern(idle[0])}": "fp"}}), or let the module above call the layer '
            "rather than compute with its weight."
        )


def _is_on(quantizer: nn.Module | None) -> bool:
    return quantizer is not None and (quantizer.active or quantizer.observing)


def _once(waiting: dict, owner: nn.Module, method: str) -> Callable[..., Any]:
    """Return a stand-in for a method which notes its first call and goes away."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        if waiting.pop((owner, method), None) is not None:
            _restore(owner, method)
        return getattr(owner, method)(*args, **kwargs)

    noted.hidden = owner.__dict__.get(method)  # of an enclosing block
    return noted


def _restore(owner: nn.Module, method: str) -> None:
    hidden = owner.__dict__.pop(method).hidden
    if hidden is not None:
        owner.__dict__[method] = hidden


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown}, ..."


def _pattern(name: str) -> str:
    """Return a rule's pattern for a layer, whatever the part of a network it is named within."""
    return "*" + ".".join(name.split(".")[-2:])
