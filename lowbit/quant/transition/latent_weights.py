"""Positions of latent weights between transition points, which reveal oscillation in training."""

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.convert import quantized_layers
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import TransitionPoints


@torch.no_grad()
def latent_statistics(model: nn.Module, bins: int = 20) -> dict[str, dict[str, Any]]:
    """Describe each quantized layer's latent weights, in units of the step δ between levels.

    In the paper's Fig. S3c latent weights gather at transition points late in plain training;
    its Fig. S3d is the mean distance to the nearest one. Reads the device; call it once an epoch.

    Args:
        model: a quantized model; layers at full precision are left out, and those whose quantizer
            cannot give its transition points.
        bins: number of bins of each histogram.

    Returns:
        For each layer's name: `mean_distance` to the nearest transition point; `distance`, shares of
        the weights by that distance in equal bins over [0, 0.5] (clipped weights farther away
        count in the last); `position`, shares by signed distance from their level,
        over [-0.5, 0.5]; `weights`, shares over `range`, which are codes and begins and ends one step
        outside the transition points.
    """
    found = {}
    for name, layer in quantized_layers(model).items():
        if layer.w_quant.bits < OFF:
            points = layer.w_quant.transition_points(layer.weight.detach())
            if points is not None:
                found[name] = _describe(points, bins)
    return found


def _describe(points: TransitionPoints, bins: int) -> dict[str, Any]:
    x, first, last = points
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


def _shares(x: Tensor, bins: int, low: float, high: float) -> list[float]:
    counts = torch.histc(x.clamp(low, high), bins, low, high)
    return (counts / x.numel()).tolist()
