"""Move the range of single channels from activations into weights before quantization.

SmoothQuant (Xiao et al. 2023, https://arxiv.org/abs/2211.10438), Eqs. 3 and 4: a linear layer computes
(X / s) (s W) instead of X W, and the norm that made X divides by s. In full precision nothing changes but
rounding; the grid of X no longer stretches to a few channels of large magnitude.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lowbit.quant.structure.norm_readers import NormReaders, WatchNorms

# Largest change of a network's output, relative to its norm, that rounding explains.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
_ROUNDING_OF_HALVES = 0.1


class Smoothing(nn.Module):
    """What a linear layer's input is divided by, and its weight multiplied: 1 where nothing was moved.

    Its own buffer is only a record: the factors are in the layer's weight and in the norm before it.

    Args:
        alpha: how much of a channel's range moves into the weight, 0 to 1.
        channels: of the input.
    """

    def __init__(self, alpha: float, channels: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("factor", torch.ones(channels))

    @property
    def applied(self) -> bool:
        """Whether a factor other than 1 is in the weight."""
        return bool((self.factor != 1).any())

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def smoothing_factors(largest_x: Tensor, largest_w: Tensor, alpha: float) -> Tensor:
    """Return s = max|X|^alpha / max|W|^(1 - alpha) of each channel, (C,), in float64 (Eq. 4).

    s is 1 where one of the maxima is zero or not finite.

    Example:
        >>> smoothing_factors(torch.tensor([8.0, 0.0]), torch.tensor([2.0, 1.0]), 0.5).tolist()
        [2.0, 1.0]
    """
    s = largest_x.double() ** alpha / largest_w.double() ** (1 - alpha)
    valid = s.isfinite() & (s > 0) & (largest_x > 0) & (largest_w > 0)
    return torch.where(valid, s, 1.0)


def smoothed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that have a `Smoothing`, by name, whether or not it was applied."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "smoothing", None), Smoothing)
    }


def smoothed_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms that divide by a factor, by name."""
    return {n: m for n, m in model.named_modules() if "divides_for_smoothing" in m.__dict__}


@torch.no_grad()
def smooth(model: nn.Module, batches: Iterable[Any]) -> int:
    """Smooth, in place, each linear layer with a `Smoothing` that reads a norm's output; return their number.

    Layers that read the same norm share s, the maximum being over their weights. A layer is left as it
    is if no norm is before it, if something else reads that norm's output, or if it is smoothed already.

    Args:
        model: at full precision, in eval mode.
        batches: inputs `model(batch)` accepts; at least one.

    Raises:
        ValueError: the output changed by more than rounding, so something in the network could not be
            watched; the network is unchanged.
    """
    waiting = {
        id(layer.weight): layer
        for layer in smoothed_layers(model).values()
        if not layer.smoothing.applied
    }
    if not waiting:
        return 0
    first, before = None, None
    with WatchNorms(model) as watch:
        for batch in batches:
            output = model(batch)
            watch.returned(output)
            if before is None:
                first, before = batch, output
    kept, done = [], 0
    for norm in watch.found():
        layers = [waiting[id(r)] for r in norm.readers if id(r) in waiting]
        if not layers:
            continue
        kept += [(p, p.clone()) for p in (norm.weight, norm.bias, *norm.readers) if p is not None]
        s = _move(norm, layers[0].smoothing.alpha)
        for layer in layers:
            layer.smoothing.factor.copy_(s)
        done += len(layers)
        owner = next(m for m in model.modules() if norm.weight in set(m._parameters.values()))
        owner.divides_for_smoothing = True
    if done and (change := _change(before, model(first))) is not None:
        for parameter, value in kept:
            parameter.copy_(value)
        for layer in waiting.values():
            layer.smoothing.factor.fill_(1)
        for owner in smoothed_norms(model).values():
            del owner.divides_for_smoothing
        raise ValueError(
            f"smoothing changed the output of this {type(model).__name__} by {change:.1%} in full "
            "precision: some code of it reads a norm's output or a weight unseen; nothing was smoothed. "
            "Use the policy without `smooth`."
        )
    return done


def scale_weights(model: nn.Module) -> None:
    """Multiply the weights of `model`, as they were before smoothing, by the factors it has on record.

    The norms' own parameters must be loaded: they are not divided here.
    """
    with torch.no_grad():
        for layer in smoothed_layers(model).values():
            if layer.smoothing.applied:
                layer.weight.mul_(layer.smoothing.factor.to(layer.weight.dtype))


def _move(norm: NormReaders, alpha: float) -> Tensor:
    """Divide a norm by s and multiply its readers' weights by s; return s."""
    largest_w = torch.stack([reader.abs().amax(0) for reader in norm.readers]).amax(0)
    largest_x = norm.largest
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(largest_x, dist.ReduceOp.MAX)
    s = smoothing_factors(largest_x, largest_w, alpha).to(norm.weight.dtype)
    for parameter in (norm.weight, norm.bias):
        if parameter is not None:
            parameter.div_(s)
    for reader in norm.readers:
        reader.mul_(s)
    return s


def _change(before: Any, after: Any) -> float | None:
    """Return how much an output changed, if that is more than rounding; None else."""
    for old, new in zip(tree_leaves(before), tree_leaves(after), strict=False):
        if not isinstance(old, Tensor) or not old.is_floating_point() or old.shape != new.shape:
            continue
        limit = _ROUNDING.get(old.dtype, _ROUNDING_OF_HALVES)
        change = float((new - old).double().norm() / old.double().norm().clamp(min=1e-30))
        if change > limit:  # NaN is not: `calibrate` reports it
            return change
    return None
