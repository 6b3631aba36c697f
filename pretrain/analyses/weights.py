"""Distribution of a checkpoint's weights, and its quantization error at few bits. (SSQL Fig. 7)

A uniform grid rounds a narrow distribution without outliers well: the largest weight of a
channel sets the step for the whole channel.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lowbit.common.plot_style import COLOURS, LINES, legend_above, panels
from lowbit.quant import quantize, quantized_layers

BITS = (2, 4, 8)
_SHOWN = 6  # layers drawn as histograms
_BINS = (21, 101)  # fewest and most; both odd, so that zero is in the middle of a bin
_NAMED = 30  # layer names that fit on an axis


def weight_layers(backbones: Mapping[str, nn.Module]) -> dict[str, dict[str, nn.Module]]:
    """Quantize backbones with SSQL's policy, in place; return their weighted layers by label and name.

    Raises:
        ValueError: the architectures differ, or there are too many backbones to distinguish.
    """
    if len(backbones) > len(COLOURS):
        raise ValueError(
            f"{len(backbones)} checkpoints cannot be distinguished in one figure; nothing was drawn. "
            f"Compare at most {len(COLOURS)}."
        )
    layers = {
        label: quantized_layers(quantize(backbone, "ssql")) for label, backbone in backbones.items()
    }
    (first, wanted), *others = layers.items()
    for label, found in others:
        if [(n, m.weight.shape) for n, m in found.items()] != [
            (n, m.weight.shape) for n, m in wanted.items()
        ]:
            raise ValueError(
                f"{label} and {first} have different architectures, so their layers do not "
                "correspond; nothing was drawn. Compare checkpoints of the same network."
            )
    return layers


def measure(layers: Mapping[str, Mapping[str, nn.Module]]) -> pd.DataFrame:
    """Return one row per checkpoint and layer: `statistics` and `errors` of its weight."""
    return pd.DataFrame(
        [
            {"checkpoint": label, "layer": name, **statistics(layer.weight), **errors(layer)}
            for label, found in layers.items()
            for name, layer in found.items()
        ]
    )


@torch.no_grad()
def statistics(weight: Tensor) -> dict[str, float]:
    """Return the shape of a distribution.

    Returns:
        n; range, max - min; sd, the standard deviation; kurtosis, 3 for a normal distribution (nan
        where all weights are equal); outside_3 and outside_6, shares beyond so many sd of the mean.
    """
    w = weight.flatten().double()
    centred = w - w.mean()
    variance = centred.square().mean()
    return {
        "n": w.numel(),
        "range": float(w.max() - w.min()),
        "sd": float(variance.sqrt()),
        "kurtosis": float(centred.pow(4).mean() / variance.square()),
        **{
            f"outside_{k}": float((centred.abs() > k * variance.sqrt()).double().mean())
            for k in (3, 6)
        },
    }


@torch.no_grad()
def errors(layer: nn.Module) -> dict[str, float]:
    """Return |w_q - w|^2 / |w|^2 of a quantized layer at 2, 4 and 8 bits, whatever its current bits."""
    quantizer, weight = layer.w_quant, layer.weight
    found, bits = {}, quantizer.bits
    for quantizer.bits in BITS:
        difference = (quantizer(weight) - weight).double()
        share = difference.square().sum() / weight.double().square().sum()
        found[f"error_{quantizer.bits}bit"] = float(share)
    quantizer.bits = bits
    return found


@torch.no_grad()
def histograms(layers: Mapping[str, Mapping[str, nn.Module]]) -> pd.DataFrame:
    """Return counts in bins that all checkpoints share, symmetric about 0 and as wide as needed.

    Returns:
        Columns checkpoint, layer, left, right, count; every layer of every checkpoint.
    """
    frames = []
    for name in next(iter(layers.values())):
        weights = {label: found[name].weight.flatten().cpu() for label, found in layers.items()}
        reach = max(float(w.abs().max()) for w in weights.values()) or 1.0
        bins = int(np.clip(next(iter(weights.values())).numel() ** 0.5, *_BINS)) | 1
        edges = np.linspace(-reach, reach, bins + 1)
        for label, w in weights.items():
            count, _ = np.histogram(w.double().numpy(), edges)
            columns = {"left": edges[:-1], "right": edges[1:], "count": count}
            frames.append(pd.DataFrame({"checkpoint": label, "layer": name, **columns}))
    return pd.concat(frames, ignore_index=True)


def draw_histograms(counts: pd.DataFrame) -> Figure:
    """Plot histograms of layers spaced evenly over the depth, overlaying the checkpoints."""
    names = counts.layer.unique()
    picked = names[np.unique(np.linspace(0, len(names) - 1, _SHOWN).round().astype(int))]
    columns = min(3, len(picked))
    figure, grid = panels(-(-len(picked) // columns), columns, height=2.8)
    for axes in grid.flat[len(picked) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, picked, strict=False):
        layer = counts[counts.layer == name]
        for index, (label, bins) in enumerate(layer.groupby("checkpoint", sort=False)):
            axes.stairs(
                100 * bins["count"] / bins["count"].sum(),
                [*bins.left, bins.right.iloc[-1]],
                label=label,
                color=COLOURS[index],
                linestyle=LINES[index % len(LINES)],
                linewidth=1.3,
            )
        axes.set(yscale="log", title=name)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    for axes in grid[-1]:
        axes.set_xlabel("weight")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of weights, %")
    legend_above(figure, grid[0, 0])
    return figure


def draw_layers(frame: pd.DataFrame) -> Figure:
    """Plot range, kurtosis, outliers and 4-bit error over the depth, one curve per checkpoint."""
    figure, grid = panels(2, 2, height=3.3, sharex=True)
    shown = (
        ("range", 1, "range, max − min"),
        ("kurtosis", 1, "kurtosis (normal: 3)"),
        ("outside_3", 100, "weights outside ±3 sd, %"),
        ("error_4bit", 100, "error at 4 bits, % of |w|²"),
    )
    for axes, (column, factor, label) in zip(grid.flat, shown, strict=True):
        for index, (name, rows) in enumerate(frame.groupby("checkpoint", sort=False)):
            axes.plot(
                range(len(rows)),
                factor * rows[column],
                label=name,
                color=COLOURS[index],
                linestyle=LINES[index % len(LINES)],
                marker=".",
            )
        axes.set_ylabel(label)
    names = frame.layer.unique()
    for axes in grid[-1]:
        if len(names) <= _NAMED:
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        else:
            axes.set_xlabel("layer, from the image on")
    legend_above(figure, grid[0, 0])
    return figure
