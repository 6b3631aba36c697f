"""Plot losses, AP and transition rates of detection jobs over their iterations.

They are read from the metrics.jsonl of finished or running jobs (`lowbit.training.metrics_log`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowbit.training.metrics_log import METRICS, read_lines


def read(jobs: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return the curves of jobs.

    Returns:
        Three frames, with columns job and iteration first:
        `curves`, one row per recorded iteration: lr and the losses;
        `scores`, one row per evaluation: AP, AP50, ...;
        `transitions`, one row per iteration and layer: target R, running K and lr U.

    Raises:
        FileNotFoundError: a folder has no metrics.jsonl.
        ValueError: a job is named twice.
    """
    folders = [Path(job) for job in jobs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two jobs have the same name ({', '.join(names)}); nothing was drawn. Name each once, and "
            "rename folders that have the same name."
        )
    curves, scores, transitions = [], [], []
    for name, folder in zip(names, folders, strict=True):
        lines = read_lines(folder / METRICS)
        if not lines:
            raise FileNotFoundError(
                f"{folder / METRICS} is missing or empty; nothing was drawn. Name the folder "
                "of a detection job that has started."
            )
        for line in lines:
            place = {"job": name, "iteration": line.get("iteration")}
            if "scores" in line:
                scores.append(place | line["scores"])
            elif "lr" in line:
                curves.append(place | {k: v for k, v in line.items() if isinstance(v, float)})
                transitions += [place | row for row in _layers(line.get("transitions"))]
    columns = ["job", "iteration", "layer", "target", "running", "lr"]
    return {
        "curves": pd.DataFrame(curves),
        "scores": pd.DataFrame(scores, columns=None if scores else ["job", "iteration", "AP"]),
        "transitions": pd.DataFrame(transitions, columns=columns),
    }


def _layers(rates: dict[str, Any] | None) -> list[dict[str, Any]]:
    if rates is None:
        return []
    columns = zip(rates["names"], rates["running"], rates["lr"], strict=True)
    return [
        {"layer": layer, "target": rates["target"], "running": running, "lr": lr}
        for layer, running, lr in columns
    ]


def draw(frames: dict[str, pd.DataFrame]) -> Figure:
    """Draw loss, AP, transition rate and learning rate of latent weights over the iterations.

    For per-layer values, thin lines are layers and the thick line is their mean; the target is
    dotted.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    (loss, ap), (rate, lr) = figure.subplots(2, 2, sharex=True)
    by_job = {name: dict(list(frame.groupby("job", sort=False))) for name, frame in frames.items()}
    for index, (job, curve) in enumerate(by_job["curves"].items()):
        colour = f"C{index}"
        loss.plot(curve.iteration, curve.total_loss, color=colour, label=job)
        if (scored := by_job["scores"].get(job)) is not None:
            ap.plot(scored.iteration, scored.AP, marker="o", color=colour)
        moved = by_job["transitions"].get(job)
        if moved is None:
            lr.plot(curve.iteration, curve.lr, color=colour, linestyle="--")
            continue
        _draw_layers(rate, moved, "running", colour)
        _draw_layers(lr, moved, "lr", colour)
        target = moved.groupby("iteration").target.mean()
        rate.plot(target.index, target, color=colour, linestyle=":")
    labels = ("loss", "AP, %", "transition rate", "learning rate of latent weights")
    for axes, label in zip((loss, ap, rate, lr), labels, strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    for axes in (rate, lr):
        axes.set_xlabel("iteration")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _draw_layers(axes: Axes, frame: pd.DataFrame, column: str, colour: str) -> None:
    for _, layer in frame.groupby("layer", sort=False):
        axes.plot(layer.iteration, layer[column], color=colour, linewidth=0.5, alpha=0.4)
    mean = frame.groupby("iteration")[column].mean()
    axes.plot(mean.index, mean, color=colour, linewidth=2)
