"""What a weight quantizer does to a distribution of weights. (TR Figs. S6 and S7)

Four steps: the latent weights w; normalized and clipped w_n; discrete w_d, the codes; and quantized w_q
(TR Eqs. S4 to S6). Weights of one code have one colour. Solid lines are where weights are clipped, dashed
ones the transition points, where the code changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lowbit.common.plot_style import COLOURS, panels
from lowbit.quant import Quantizer, QuantizerSpec

STEPS = ("latent", "normalized", "discrete", "quantized")
_LABELS = {
    "latent": "latent weights w",
    "normalized": "normalized and clipped, w_n",
    "discrete": "codes w_d",
    "quantized": "quantized weights w_q",
}
_BINS = 120  # of latent and normalized weights
_MOST_LEVELS = 32  # that can be told apart in a picture


@dataclass(frozen=True)
class Quantized:
    """Weights on their way through one quantizer.

    Attributes:
        scale: s.
        step: width of a code's interval of latent weights: s of LSQ, s / γ of Interval.
        low, high: the codes' bounds.
        spacing: δ, the distance of neighbouring quantized weights.
        values: of each of `STEPS`, (n,).
    """

    scale: float
    step: float
    low: int
    high: int
    spacing: float
    values: dict[str, np.ndarray]

    @property
    def clipping_points(self) -> tuple[float, float]:
        """Latent weights beyond these are clipped."""
        return self.low * self.step, self.high * self.step

    @property
    def transition_points(self) -> list[float]:
        """Latent weights where the code changes, rising."""
        return [(code + 0.5) * self.step for code in range(self.low, self.high)]


def gaussian(sd: float = 0.1, count: int = 100_000, seed: int = 0) -> Tensor:
    """Return zero-mean normal weights, (n,): the paper's example, whose sd is 0.1."""
    return sd * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def quantize_steps(
    weights: Tensor, spec: QuantizerSpec, bits: int, scale: float | None
) -> Quantized:
    """Take weights through a quantizer.

    Args:
        weights: (n,).
        spec: a quantizer with a learned step: LSQ, LSQPlus or Interval, one scale for all weights.
        bits: of the codes.
        scale: s; None: the one that the quantizer starts with on these weights.

    Raises:
        ValueError: the quantizer has no step, or there are too many levels to draw.
    """
    quantizer = spec.build("weight", bits=bits, ndim=1)
    if getattr(type(quantizer), "latent_step", None) is Quantizer.latent_step:
        raise ValueError(
            f"{spec.kind} computes its levels from the weights, so it has no scale to draw; nothing was "
            "drawn. Choose a policy with LSQ, LSQPlus or Interval weights, such as interval or lsq."
        )
    if 2**bits > _MOST_LEVELS:
        raise ValueError(
            f"{2**bits} levels cannot be told apart in a picture; nothing was drawn. Use up to "
            f"{_MOST_LEVELS.bit_length() - 1} bits."
        )
    quantizer.init_from(weights)
    quantizer.signed = True
    if scale is not None:
        quantizer.q_scale.fill_(scale)
    step, (low, high) = quantizer.latent_step.item(), quantizer.levels()
    spacing, _ = quantizer.grid(weights)
    found = {
        "latent": weights,
        "normalized": (weights / step).clamp(low, high),
        "discrete": quantizer.codes(weights),
        "quantized": quantizer.eval()(weights),
    }
    return Quantized(
        scale=quantizer.scale.item(),
        step=step,
        low=low,
        high=high,
        spacing=float(spacing),
        values={name: value.double().numpy() for name, value in found.items()},
    )


def table(quantized: Sequence[Quantized]) -> pd.DataFrame:
    """Return one row per scale, step and bin or level: columns scale, step, left, right, code, count."""
    frames = []
    for one in quantized:
        codes = one.values["discrete"]
        for name in STEPS:
            edges, counts = _counted(one, name)
            for code, count in counts.items():
                filled = count > 0
                columns = {
                    "left": edges[:-1][filled],
                    "right": edges[1:][filled],
                    "code": code,
                    "count": count[filled],
                }
                frames.append(pd.DataFrame({"scale": one.scale, "step": name, **columns}))
        assert len(codes) == sum(frame["count"].sum() for frame in frames[-len(counts) :])
    return pd.concat(frames, ignore_index=True)


def summary(quantized: Sequence[Quantized]) -> list[dict]:
    """Return for each scale its points, the share of weights at each code, and what is clipped or lost."""
    rows = []
    for one in quantized:
        w, codes = one.values["latent"], one.values["discrete"]
        low, high = one.clipping_points
        middle = codes * one.step
        rows.append(
            {
                "scale": one.scale,
                "clipping_points": [low, high],
                "transition_points": one.transition_points,
                "delta": one.spacing,
                "share_of_codes": {
                    str(code): float((codes == code).mean())
                    for code in range(one.low, one.high + 1)
                },
                "clipped": float(((w < low) | (w > high)).mean()),
                "squared_error": float(((middle - w) ** 2).sum() / (w**2).sum()),
            }
        )
    return rows


def draw_steps(one: Quantized) -> Figure:
    """Plot the four steps of one quantizer, as Fig. S6."""
    figure, grid = panels(2, 2, height=3.0)
    for axes, name in zip(grid.flat, STEPS, strict=True):
        _draw(axes, one, name)
        axes.set_xlabel(_LABELS[name])
        axes.set_ylabel("share of weights, %")
    grid[1, 1].set_title(f"δ = {one.spacing:.3g}")
    grid[0, 0].set_title(f"s = {one.scale:.3g}")
    return figure


def draw_intervals(quantized: Sequence[Quantized]) -> Figure:
    """Plot the same latent weights with each quantizer's points, as Fig. S7."""
    figure, grid = panels(1, len(quantized), height=3.2, sharex=True, sharey=True)
    for axes, one in zip(grid.flat, quantized, strict=True):
        _draw(axes, one, "latent")
        axes.set(title=f"s = {one.scale:.3g}", xlabel=_LABELS["latent"])
    grid[0, 0].set_ylabel("share of weights, %")
    return figure


def _counted(one: Quantized, name: str) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return the bins' edges and each code's counts in them; of codes and levels a bin is one of them."""
    values, codes = one.values[name], one.values["discrete"]
    if name in ("discrete", "quantized"):
        width = 1.0 if name == "discrete" else one.spacing
        edges = (np.arange(one.low, one.high + 2) - 0.5) * width
    else:
        edges = np.linspace(values.min(), values.max(), _BINS + 1)
    counts = {
        code: np.histogram(values[codes == code], edges)[0] for code in range(one.low, one.high + 1)
    }
    return edges, counts


def _draw(axes: Axes, one: Quantized, name: str) -> None:
    edges, counts = _counted(one, name)
    total = len(one.values[name])
    below = np.zeros(len(edges) - 1)  # in a bin that a transition point divides
    for place, (code, count) in enumerate(counts.items()):
        axes.bar(
            (edges[:-1] + edges[1:]) / 2,
            100 * count / total,
            bottom=below,
            width=np.diff(edges) * (0.3 if name in ("discrete", "quantized") else 1.0),
            color=COLOURS[place % len(COLOURS)],
            label=str(code),
        )
        below += 100 * count / total
    if name in ("latent", "normalized"):
        unit = 1.0 if name == "latent" else 1 / one.step
        for point in one.transition_points:
            axes.axvline(point * unit, color="black", linestyle="--", linewidth=1)
    if name == "latent":
        for point in one.clipping_points:
            axes.axvline(point, color="black", linewidth=1.2)
    axes.grid(axis="x", visible=False)
