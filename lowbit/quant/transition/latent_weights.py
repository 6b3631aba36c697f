"""Where latent weights lie between transition points: what an oscillating training looks like inside."""

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.convert import quantized_layers
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers import EWGS, DoReFa, Interval, Quantizer, Sign


def latent_statistics(model: nn.Module, bins: int = 20) -> dict[str, dict[str, Any]]:
    """Describe each quantized layer's latent weights, in units of the step δ between levels.

    In the paper's Fig. S3c latent weights gather at the transition points late in a plain training;
    its Fig. S3d is the mean distance to the nearest one. Reads the device; call it once an epoch.

    Args:
        model: a quantized model; layers at full precision are left out, and those of a quantizer that
            does not say between which codes its equal steps lie.
        bins: of each histogram.

    Returns:
        For each layer's name: `mean_distance` to the nearest transition point; `distance`, shares of
        the weights by that distance in equal bins over [0, 0.5] (clipped weights that lie farther off
        count in the last); `position`, shares by signed distance from the level they are coded as,
        over [-0.5, 0.5]; `weights`, shares over `range`, which are codes and begins and ends one step
        outside the transition points.
    """
    found = {}
    for name, layer in quantized_layers(model).items():
        if layer.w_quant.bits < OFF and hasattr(layer.w_quant, "levels"):
            found[name] = _describe(layer.w_quant, layer.weight.detach(), bins)
    return found


@torch.no_grad()
def _describe(quantizer: Quantizer, weight: Tensor, bins: int) -> dict[str, Any]:
    x, first, last = transition_points(quantizer, weight)
    x = x.flatten().float()
    off = x - ((x - first).round().clamp(0, last - first) + first)  # from the nearest one
    cell = (x - first).floor().clamp(-1, last - first)  # -1 below the first point
    position = x - (first + cell + 0.5)
    return {
        "mean_distance": off.abs().mean().item(),
        "distance": _shares(off.abs(), bins, 0.0, 0.5),
        "position": _shares(position, bins, -0.5, 0.5),
        "weights": _shares(x, bins, first - 1, last + 1),
        "range": [first - 1, last + 1],
    }


def transition_points(quantizer: Quantizer, weight: Tensor) -> tuple[Tensor, float, float]:
    """Return the weights in units of δ, and the first and last of the points, which lie 1 apart.

    A binary weight has one point, 0, and is measured by its quantizer's scale.
    """
    lo, hi = quantizer.levels()
    if isinstance(quantizer, Sign | DoReFa) and (lo, hi) == (-1, 1):
        size = quantizer.scale if isinstance(quantizer, Sign) else weight.abs().mean()
        return weight / size, 0.0, 0.0
    if isinstance(quantizer, DoReFa):
        unit = quantizer._unit(weight)
        if quantizer.scheme != "original":  # floors instead of rounding
            return unit * (hi + 1), 1.0, float(hi)
        return unit * hi, 0.5, hi - 0.5
    if isinstance(quantizer, Interval):
        x = weight * (quantizer.constants()[2] / quantizer.scale)
    elif isinstance(quantizer, EWGS):
        x = (weight - quantizer.q_lower) / quantizer.scale * hi
    else:
        step, offset = quantizer.grid(weight)
        x = (weight - offset) / step
    return x, lo + 0.5, hi - 0.5


def _shares(x: Tensor, bins: int, low: float, high: float) -> list[float]:
    counts = torch.histc(x.clamp(low, high), bins, low, high)
    return (counts / x.numel()).tolist()
