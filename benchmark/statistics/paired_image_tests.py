"""Paired tests over the test images that two networks, or two detectors, both answered.

What both share, such as an image that is hard for both, drops out of their difference, so they can be
told apart even where their intervals overlap. The tests say how the difference would vary over other test
images, not over other seeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from lowbit.benchmark.statistics.ranking import ALPHA
from lowbit.detection.scoring.half_samples import p_of_difference, spread_of_difference

_DRAWS = 4_000  # draws of which of two was right
_PRIOR = 3  # images that a class's shares are moved towards all images' by


@dataclass(frozen=True)
class ImageTest:
    """The 95 % interval of a difference in %, and the p-value that there is none."""

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
        The interval is that of Bonett and Price (2012), within the classes: see `_difference_interval`.

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
    low, high = _difference_interval(only_a, only_b, images)
    one_right = only_a + only_b
    if len(images) == 1:
        from scipy import stats  # here: its import takes a second

        fewer, n = min(only_a[0], only_b[0]), one_right[0]
        p = min(1.0, 2 * float(stats.binom.cdf(fewer, n, 0.5)))
    else:
        found = ((only_a - only_b) / images).mean()
        tossed = np.random.default_rng(0).binomial(one_right, 0.5, size=(_DRAWS, len(images)))
        by_chance = ((2 * tossed - one_right) / images).mean(axis=1)
        p = _share(np.abs(by_chance) >= abs(found) - 1e-12)
    return ImageTest(float(low), float(high), p)


def compare_halves(
    difference: float, halves: np.ndarray, images: int, *, bias: float | None = None
) -> ImageTest | None:
    """Test a difference of two numbers by its values on the same halves of the images, (halves,).

    The interval and the t-test are those of the difference without the bias of finite sets, which is
    not the same for two detectors: see `lowbit.detection.scoring.half_samples`, also for `bias`. None
    where the halves say nothing.

    Example:
        >>> halves = 1 + np.linspace(-0.5, 0.5, 200)
        >>> test = compare_halves(1.0, halves, 500)
        >>> round(test.low, 2), round(test.high, 2), test.p < 0.05
        (0.43, 1.57, True)
    """
    spread = spread_of_difference(difference, halves, images, bias=bias)
    if spread is None:
        return None
    p = p_of_difference(difference, halves, images, bias=bias)
    return ImageTest(spread.low, spread.high, p)


def _difference_interval(
    only_a: np.ndarray, only_b: np.ndarray, images: np.ndarray
) -> tuple[float, float]:
    """Return the 95 % interval of a difference of accuracies, in %, from the counts of each class (C,).

    Wald's around the difference, with each class's shares of images that only one got right moved
    towards those of all images, as if three more of these were of the class; to all images one is
    added that A alone got right, and one that B alone did. So it has a width where both agree on every
    image, and with classes of one image.
    """
    n = images.sum()
    a, b = ((x + _PRIOR * (x.sum() + 1) / (n + 2)) / (images + _PRIOR) for x in (only_a, only_b))
    error = np.sqrt(((a + b - (a - b) ** 2) / images).sum()) / len(images)
    found, half = ((only_a - only_b) / images).mean(), ndtri(1 - ALPHA / 2) * error
    return 100 * max(-1.0, float(found - half)), 100 * min(1.0, float(found + half))


def _share(holds: np.ndarray) -> float:
    """Return a p-value from draws; the observation itself counts as one, so it is never 0."""
    return (1 + int(holds.sum())) / (1 + len(holds))
