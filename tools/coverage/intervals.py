"""Intervals of 95 % for one number from its values on resampled images, ours and the usual ones."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from lowbit.detection.scoring.half_samples import (
    bias_of,
    draw_halves,
    spread,
    spread_of_difference,
)

WAYS = ("ours", "percentile", "normal", "BCa")
_ENDS = np.array([0.025, 0.975])


class Draws(NamedTuple):
    """A number on all images, and its values (draws,) on halves, bootstrap draws, and without each group."""

    images: int
    value: float
    halves: np.ndarray
    bootstrap: np.ndarray
    without: np.ndarray


def weights(images: int, *, halves: int, bootstrap: int, groups: int, seed: int) -> np.ndarray:
    """Return how often each image counts on all draws: (I, 1 + halves + bootstrap + groups)."""
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(images, np.full(images, 1 / images), size=bootstrap).T
    group = draw.permutation(images) % groups
    without = group[:, None] != np.arange(groups)
    parts = (np.ones((images, 1)), draw_halves(images, halves // 2, seed=seed), drawn, without)
    return np.concatenate(parts, axis=1).astype(np.float32)


def split(values: np.ndarray, images: int, *, halves: int, bootstrap: int) -> Draws:
    """Name a number's values on the draws of `weights`."""
    return Draws(images, float(values[0]), *np.split(values[1:], [halves, halves + bootstrap]))


def intervals(
    draws: Draws, smooth: Draws, *, difference: bool = False
) -> dict[str, tuple[float, float]]:
    """Return the interval by each of WAYS; without a spread it is the number itself.

    `smooth` are the draws of the metric whose bias is taken for this one's.
    """
    value, drawn = draws.value, draws.bootstrap[~np.isnan(draws.bootstrap)]
    bias = bias_of(smooth.value, smooth.halves)
    spread_by = spread_of_difference if difference else spread
    ours = spread_by(value, draws.halves, draws.images, bias=bias)
    half = stats.norm.ppf(_ENDS[1]) * drawn.std(ddof=1)
    return {
        "ours": (ours.low, ours.high) if ours else (value, value),
        "percentile": tuple(np.quantile(drawn, _ENDS)),
        "normal": (value - half, value + half),
        "BCa": tuple(np.quantile(drawn, _bca_ends(value, drawn, draws.without))),
    }


def _bca_ends(value: float, drawn: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return the quantiles of BCa (Efron 1987): median bias, and skewness by the jackknife of groups."""
    below = np.clip(((drawn < value).mean() + (drawn <= value).mean()) / 2, 0.5 / len(drawn), 1)
    bias = stats.norm.ppf(min(below, 1 - 0.5 / len(drawn)))
    away = np.nanmean(without) - without[~np.isnan(without)]
    squares = (away**2).sum()
    skewness = (away**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    shifted = bias + stats.norm.ppf(_ENDS)
    return stats.norm.cdf(bias + shifted / (1 - skewness * shifted))
