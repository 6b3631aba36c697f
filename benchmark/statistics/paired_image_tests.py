"""Paired tests over the test images that two networks, or two detectors, both answered.

What both share, such as an image that is hard for both, drops out of their difference, so they can be
told apart even where their intervals overlap. The tests say how the difference would vary over other test
images, not over other seeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from lowbit.benchmark.statistics.ranking import ALPHA

_DRAWS = 4_000  # resamplings of the answers


@dataclass(frozen=True)
class ImageTest:
    """The 95 % bootstrap interval of a difference in %, and the p-value that there is none."""

    low: float
    high: float
    p: float


def compare_answers(right_a: np.ndarray, right_b: np.ndarray, labels: np.ndarray) -> ImageTest:
    """Test the difference of two accuracies, each image (N,) answered by both.

    Args:
        right_a, right_b: whether A and B were right.
        labels: the images' classes for a mean per class; all equal for top-1.

    Returns:
        For top-1 the p-value of McNemar's exact test: of the images that only one got right, either
        is as likely to have it. For a mean per class the same within the classes, on 4,000 draws.
        The interval is the paired bootstrap's, images drawn anew within their classes.

    Example:
        >>> a, b = np.arange(100) < 90, np.arange(100) < 80
        >>> round(compare_answers(a, b, np.zeros(100)).p, 5)  # 10 to 0: 2 / 2^10
        0.00195
    """
    _, classes = np.unique(labels, return_inverse=True)
    images = np.bincount(classes)  # (C,)
    only_a, only_b = (
        np.bincount(classes, weights=only).astype(int)
        for only in (right_a & ~right_b, right_b & ~right_a)
    )
    draw = np.random.default_rng(0)
    shares = np.stack([only_a, only_b, images - only_a - only_b], axis=1) / images[:, None]
    drawn = draw.multinomial(images, shares, size=(_DRAWS, len(images)))  # (draws, C, 3)
    differences = ((drawn[..., 0] - drawn[..., 1]) / images).mean(axis=1)
    low, high = 100 * np.quantile(differences, [ALPHA / 2, 1 - ALPHA / 2])
    one_right = only_a + only_b
    if len(images) == 1:
        fewer, n = min(only_a[0], only_b[0]), one_right[0]
        p = min(1.0, 2 * float(stats.binom.cdf(fewer, n, 0.5)))
    else:
        found = ((only_a - only_b) / images).mean()
        tossed = draw.binomial(one_right, 0.5, size=(_DRAWS, len(images)))
        by_chance = ((2 * tossed - one_right) / images).mean(axis=1)
        p = _share(np.abs(by_chance) >= abs(found) - 1e-12)
    return ImageTest(float(low), float(high), p)


def compare_draws(a: np.ndarray, b: np.ndarray) -> ImageTest | None:
    """Test the difference of two numbers by their values on the same draws of the images, (draws,).

    None where a draw in twenty does not define them.

    Example:
        >>> drawn = np.linspace(30, 40, 1000)
        >>> compare_draws(drawn + 1, drawn).p < 0.05, compare_draws(drawn, drawn[::-1]).p
        (True, 1.0)
    """
    differences = a - b
    differences = differences[~np.isnan(differences)]
    if len(differences) < 0.95 * len(a):
        return None
    low, high = np.quantile(differences, [ALPHA / 2, 1 - ALPHA / 2])
    p = min(1.0, 2 * min(_share(differences <= 0), _share(differences >= 0)))
    return ImageTest(float(low), float(high), p)


def _share(holds: np.ndarray) -> float:
    """Return a p-value from draws; the observation itself counts as one, so it is never 0."""
    return (1 + int(holds.sum())) / (1 + len(holds))
