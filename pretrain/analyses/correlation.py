"""Correlation of SSQL's two errors during training, which its theory assumes to be zero. (SSQL Fig. 10)"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lowbit.common.plot_style import COLOURS, MUTED, panels
from lowbit.pretrain.recipe import Recipe
from lowbit.pretrain.stage import run
from lowbit.pretrain.step import Step
from lowbit.quant import Precision

BOUND = 0.1  # the paper: "it does not exceed ±0.1"
_COLUMNS = ("rho", "quantization_error", "contrastive_error", "cross_term")


def correlate(recipe: Recipe, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Pretrain with an SSQL recipe and record every step; watching does not affect the training.

    Args:
        recipe: its pairing must be ssql.
        folder: of the run, created if missing; must not contain an earlier run.

    Returns:
        One row per step: step and epoch (from 1), weight_bits, activation_bits, and `error_terms`. And what
        the pretraining returned, with the `summary` of these rows as its detail `correlation`.

    Raises:
        ValueError: the recipe has no such errors, or the folder contains an earlier run.
        FileNotFoundError, FloatingPointError: as `pretrain.run`.
    """
    _check(recipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    watch = ErrorCorrelation()
    returned = run(recipe, folder, watch=watch)
    frame = watch.frame(recipe)
    returned["details"]["correlation"] = summary(frame)
    return frame, returned


class ErrorCorrelation:
    """Record SSQL's steps, or parts of steps if batches are accumulated.

    Values stay on the device until `frame` reads them, all at once.
    """

    def __init__(self) -> None:
        self._terms: list[Tensor] = []
        self._drawn: list[Precision] = []

    @torch.no_grad()
    def __call__(self, step: Step) -> None:
        """Record one step of the `ssql` pairing, which has already computed everything read here."""
        (q,) = step.drawn
        e1, e2, e1_q, _ = step.embeddings  # v1,FP  v2,FP  v1,q  v2,q
        self._terms.append(error_terms(e1_q.p, e1.p, e2.k))
        self._drawn.append(q)

    def frame(self, recipe: Recipe) -> pd.DataFrame:
        """Return the records of a run of `recipe`, one row per step, averaged over its parts."""
        parts = torch.stack(self._terms).cpu().view(-1, recipe.accumulate, len(_COLUMNS))
        values = parts.mean(1)  # (steps, 4)
        drawn = self._drawn[:: recipe.accumulate]
        bits = {
            "step": range(1, len(values) + 1),
            "epoch": [index * recipe.epochs // len(values) + 1 for index in range(len(values))],
            "weight_bits": [q.weight_bits for q in drawn],
            "activation_bits": [q.activation_bits for q in drawn],
        }
        return pd.DataFrame({**bits, **dict(zip(_COLUMNS, values.T.tolist(), strict=True))})


def error_terms(p1_q: Tensor, p1: Tensor, z2: Tensor) -> Tensor:
    """Return rho, |e_q|^2, |e_c|^2 and 2 <e_q, e_c>, each averaged over the batch.

    On vectors of length 1, e_q = p1_q - p1 is the quantization error, e_c = p1 - z2 the contrastive
    error, and rho = mean_i cos(e_q,i, e_c,i). SSQL's theory drops the last term of
    |p1_q - z2|^2 = |e_q|^2 + |e_c|^2 + 2 <e_q, e_c>.

    Args:
        p1_q, p1, z2: (N, dim) each, of any length.

    Example:
        >>> p1_q, p1, z2 = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
        >>> error_terms(p1_q, p1, z2).round().tolist()    # the quantized branch is at the target
        [-1.0, 2.0, 2.0, -4.0]
    """
    p1_q, p1, z2 = (F.normalize(x.float(), dim=1) for x in (p1_q, p1, z2))
    e_q, e_c = p1_q - p1, p1 - z2  # (N, dim)
    per_image = (
        F.cosine_similarity(e_q, e_c, dim=1),
        e_q.square().sum(1),
        e_c.square().sum(1),
        2 * (e_q * e_c).sum(1),
    )
    return torch.stack(per_image).mean(1)


def summary(frame: pd.DataFrame) -> dict[str, float]:
    """Return how large the correlation gets, which the paper states."""
    size = frame.rho.abs()
    return {
        "steps": len(frame),
        "mean_rho": float(frame.rho.mean()),
        "mean_abs_rho": float(size.mean()),
        "max_abs_rho": float(size.max()),
        "share_within_bound": float((size <= BOUND).mean()),
        "bound": BOUND,
    }


def draw(frame: pd.DataFrame, title: str) -> Figure:
    """Plot the curve over the steps and its histogram, with the paper's bound."""
    figure, ((curve, histogram),) = panels(
        1, 2, height=4.0, sharey=True, gridspec_kw={"width_ratios": (3, 1)}
    )
    found = summary(frame)
    curve.plot(frame.step, frame.rho, color=COLOURS[0], linewidth=0.8)
    curve.set(xlabel="training step", ylabel="correlation ρ of e_q and e_c")
    figure.suptitle(
        f"{title}: mean |ρ| {found['mean_abs_rho']:.3f}, largest |ρ| {found['max_abs_rho']:.3f}"
    )
    histogram.hist(
        frame.rho,
        bins=40,
        orientation="horizontal",
        color=COLOURS[0],
        weights=[100 / len(frame)] * len(frame),
    )
    histogram.set_xlabel("share of steps, %")
    reach = 1.15 * max(found["max_abs_rho"], 1.5 * BOUND)
    curve.set_ylim(-reach, reach)
    for axes in (curve, histogram):
        for bound in (-BOUND, BOUND):
            axes.axhline(bound, color=MUTED, linestyle="--", linewidth=1)
    curve.annotate(
        f"±{BOUND:g}, the paper's bound",
        (1, BOUND),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        horizontalalignment="right",
        color=MUTED,
    )
    return figure


def _check(recipe: Recipe, folder: Path) -> None:
    if recipe.pairing != "ssql":
        raise ValueError(
            f"the recipe {recipe.name!r} has pairing {recipe.pairing!r}, but only SSQL predicts a "
            "full-precision target from a quantized view; nothing was trained. Use an SSQL recipe "
            "such as configs/pretrain/digits_ssql.yaml, or add: pairing ssql"
        )
    if recipe.epochs == 0:
        raise ValueError(
            f"the recipe {recipe.name!r} trains for 0 epochs, so there are no steps to record; nothing "
            "was trained. Add: epochs 5"
        )
    if any((folder / name).exists() for name in ("last.pth", "checkpoint.pth")):
        raise ValueError(
            f"{folder} holds an earlier run, whose steps can no longer be recorded; nothing was "
            "trained. Name another --output-dir, or delete that one."
        )
