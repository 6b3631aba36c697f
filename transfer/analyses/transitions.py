"""Figures of transition rates and latent weights during training. (TR Figs. 1 and S1, S3 to S5)

Draws the frames of `runs.read`. A *run* is one precision of one quantization-aware training job.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lowbit.common.plot_style import COLOURS, LINES, MUTED, legend_above, panels

RUN = ["job", "precision"]
_SHOWN = 4  # epochs whose latent weights are drawn


def draw_curves(frames: dict[str, pd.DataFrame]) -> Figure:
    """Plot rates, learning rates, steps, distances, losses and accuracies over the epochs.

    For per-layer values, thin lines are layers and the thick line is their mean.

    Raises:
        ValueError: there are more runs than colours.
    """
    layers, curves = frames["transitions"], frames["curves"]
    runs = _runs(curves)
    figure, grid = panels(3, 2, height=3.0, sharex=True)
    (rate, lr), (step, distance), (loss, accuracy) = grid
    for index, (label, (job, precision)) in enumerate(runs.items()):
        style = {"color": COLOURS[index], "linestyle": LINES[index % len(LINES)]}
        of_run = layers[(layers.job == job) & (layers.precision == precision)]
        curve = curves[(curves.job == job) & (curves.precision == precision)]
        counted = "running" if of_run.running.notna().any() else "rate"
        _draw_layers(rate, of_run, counted, label=label, **style)
        target = of_run.groupby("epoch").target.mean()
        rate.plot(target.index, target, color="black", linestyle=":", linewidth=1.2, zorder=3)
        if of_run.lr.notna().any():
            _draw_layers(lr, of_run, "lr", **style)
        else:
            lr.plot(curve.epoch, curve.lr, linewidth=2, **style)
        _draw_layers(step, of_run, "effective_step", **style)
        _draw_layers(distance, of_run, "mean_distance", **style)
        _draw_splits(loss, curve, "loss", style)
        _draw_splits(accuracy, curve, "accuracy", style)
    rate.set_ylabel("transition rate")
    lr.set_ylabel("learning rate of latent weights")
    step.set_ylabel("effective step |Δw_q|")
    distance.set_ylabel("distance to transition point, δ")
    loss.set_ylabel("loss")
    accuracy.set_ylabel("top-1, %")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in (rate, lr, step, distance):
        axes.set_ylim(bottom=0)
    _explain(rate, layer=(0.6, "-", MUTED), mean=(2, "-", MUTED), target=(1.2, ":", "black"))
    _explain(accuracy, train=(1, "-", MUTED), val=(2, "-", MUTED))
    legend_above(figure, rate)
    return figure


def draw_latent(latent: pd.DataFrame, epochs: Sequence[int] = ()) -> Figure:
    """Plot latent weights around transition points, one panel per run and one curve per epoch.

    Args:
        latent: of `read`; the layers in it are added up.
        epochs: drawn if a run has them; default four, evenly from its first to its last.

    Raises:
        ValueError: nothing was recorded, or no run has one of these epochs; too many runs.
    """
    _check_epochs(latent, epochs)
    runs = _runs(latent)
    columns = min(3, len(runs))
    figure, grid = panels(-(-len(runs) // columns), columns, height=3.2, sharex=True, sharey=True)
    for axes in grid.flat[len(runs) :]:
        axes.set_visible(False)
    for axes, (label, (job, precision)) in zip(grid.flat, runs.items(), strict=False):
        of_run = latent[(latent.job == job) & (latent.precision == precision)]
        shown = _spread(of_run.epoch.unique(), epochs)
        # viridis without its palest end: light to dark in gray and under colour-vision deficiencies
        colours = colormaps["viridis_r"](np.linspace(0.15, 1, len(shown)))
        for index, epoch in enumerate(shown):
            bins = of_run[of_run.epoch == epoch].groupby(["left", "right"])["count"].sum()
            left, right = (bins.index.get_level_values(side) for side in ("left", "right"))
            axes.stairs(
                100 * bins.to_numpy() / bins.sum(),
                [*left, right[-1]],
                baseline=None,  # no strokes down to 0 at both ends
                label=f"epoch {epoch}",
                color=colours[index],
                linestyle=LINES[index % len(LINES)],
                linewidth=1.6,
            )
        axes.set(title=label, xlabel="distance to transition point, δ")
        axes.legend()
    grid[0, 0].set_ylim(bottom=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("share of latent weights, %")
    return figure


def _runs(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return the distinct runs of a frame."""
    pairs = list(frame[RUN].drop_duplicates().itertuples(index=False, name=None))
    if len(pairs) > len(COLOURS):
        raise ValueError(
            f"{len(pairs)} runs (precisions of jobs) cannot be distinguished in one figure; nothing was "
            f"drawn. Name fewer jobs, {len(COLOURS)} runs at most."
        )
    several = {name: frame[name].nunique() > 1 for name in RUN}
    if not any(several.values()):
        several = dict.fromkeys(RUN, True)
    return {
        ", ".join(value for name, value in zip(RUN, pair, strict=True) if several[name]): pair
        for pair in pairs
    }


def _draw_layers(axes: Axes, rows: pd.DataFrame, column: str, *, color: str, **style: Any) -> None:
    by_layer = rows.pivot(index="epoch", columns="layer", values=column)
    axes.plot(by_layer.index, by_layer, color=color, linewidth=0.6, alpha=0.35)
    axes.plot(by_layer.index, by_layer.mean(axis=1), color=color, linewidth=2, **style)


def _draw_splits(axes: Axes, curve: pd.DataFrame, name: str, style: dict[str, Any]) -> None:
    for split, width in (("train", 1.0), ("val", 2.0)):
        if f"{name}_{split}" in curve:
            axes.plot(curve.epoch, curve[f"{name}_{split}"], linewidth=width, **style)


def _explain(axes: Axes, **lines: tuple[float, str, str]) -> None:
    """Explain line widths and styles, next to the legend of colours."""
    handles = [
        Line2D([], [], linewidth=width, linestyle=style, color=color, label=label)
        for label, (width, style, color) in lines.items()
    ]
    axes.legend(handles=handles, fontsize=9)


def _check_epochs(latent: pd.DataFrame, epochs: Sequence[int]) -> None:
    if latent.empty:
        raise ValueError(
            "these jobs recorded no latent weights; nothing was drawn. Jobs of protocol qat record them once "
            "per epoch: run them again."
        )
    known = set(latent.epoch)
    if unknown := [epoch for epoch in epochs if epoch not in known]:
        raise ValueError(
            f"no job has recorded latent weights in epoch {unknown[0]}; nothing was drawn. Epochs "
            f"count from 0; the last is {max(known)}."
        )


def _spread(recorded: np.ndarray, epochs: Sequence[int]) -> list[int]:
    if epochs:
        return sorted({int(epoch) for epoch in recorded} & set(epochs))
    places = np.linspace(0, len(recorded) - 1, _SHOWN).round().astype(int)
    return [int(recorded[place]) for place in np.unique(places)]
