"""What several seeds say: means with intervals, paired differences, and ranks in which ties are ties.

Everything here is a pure function of numbers; what may be compared with what is decided in
`benchmark/comparability.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

ALPHA = 0.05  # two-sided; intervals cover 1 - ALPHA


@dataclass(frozen=True)
class Summary:
    """A sample's mean, its sample standard deviation and a t-interval of the mean.

    With a single value there is no spread to speak of: `sd`, `low` and `high` are NaN.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """One row's values, one a seed, in the unit of its metric.

    Attributes:
        values: at least one number.
        images: test images behind every value when the metric is the share of images answered
            right, in percent; None for anything else (average precision is no proportion).
    """

    values: tuple[float, ...]
    images: int | None = None


def summarize(values: Sequence[float], *, alpha: float = ALPHA) -> Summary:
    """Return mean, standard deviation (n - 1) and the Student t-interval of the mean.

    Raises:
        ValueError: there is no value, or one is not finite.

    Example:
        >>> s = summarize([92.0, 93.0, 94.0])
        >>> s.mean, s.sd, s.n, round(s.low, 3), round(s.high, 3)
        (93.0, 1.0, 3, 90.516, 95.484)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"{list(values)} cannot be averaged; no summary was made. Pass one finite number a seed."
        )
    mean, n = float(array.mean()), array.size
    if n == 1:
        return Summary(mean, math.nan, 1, math.nan, math.nan)
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - half, mean + half)


def paired_difference(a: Sequence[float], b: Sequence[float], *, alpha: float = ALPHA) -> Summary:
    """Summarize a - b over pairs that share everything else (seed, data set, precision).

    The interval is that of the paired t-test: it leaves zero out exactly when that test rejects.

    Raises:
        ValueError: the two do not pair up.

    Example:
        >>> d = paired_difference([93.0, 94.0, 95.5], [92.0, 92.5, 93.5])
        >>> d.mean, d.n, d.low > 0
        (1.5, 3, True)
    """
    if len(a) != len(b):
        raise ValueError(
            f"{len(a)} values cannot be paired with {len(b)}; no difference was taken. Pass the "
            "values of both sides in one order."
        )
    return summarize(np.subtract(a, b), alpha=alpha)


def rank_groups(samples: Sequence[Sample], *, alpha: float = ALPHA) -> list[int]:
    """Rank rows, larger being better: 1 + the number of rows told to be better.

    Rows that cannot be told apart from the best all have rank 1, so the first group is the answer to
    "which of these may be the best?". Being told apart is not transitive (a may tie with b and b with
    c while a beats c), hence a count instead of a partition.

    The test is Tukey-Kramer's over all pairs: the spread over seeds is pooled over the rows, so that
    three seeds a row are enough to see something, and the chance that any row is wrongly called worse
    is at most `alpha` whatever the number of rows. It assumes one spread for all rows. A row with one
    seed is tested with the spread of the others; its own is unknown, which the board says.

    Where nothing has a spread (one seed everywhere) proportions are tested by their images instead
    (two-proportion z-test, Bonferroni over the pairs), and anything else stays tied.

    Example:
        >>> seeds = [(93.0, 93.4, 93.2), (93.1, 93.3, 93.5), (80.1, 80.4, 80.2)]
        >>> rank_groups([Sample(values) for values in seeds])
        [1, 1, 3]
    """
    left, right = np.tril_indices(len(samples), -1)  # every pair once
    means = np.array([np.mean(sample.values) for sample in samples])
    different = _tukey_kramer(samples, left, right, alpha)
    if different is None:
        level = alpha / max(len(left), 1)
        pairs = zip(left, right, strict=True)
        different = [_two_proportions(samples[i], samples[j]) <= level for i, j in pairs]
    worse = np.where(means[left] > means[right], right, left)[np.array(different, dtype=bool)]
    return [1 + int(count) for count in np.bincount(worse, minlength=len(samples))]


def _tukey_kramer(
    samples: Sequence[Sample], left: np.ndarray, right: np.ndarray, alpha: float
) -> np.ndarray | None:
    """Which pairs differ: |difference| / sqrt(MSE / 2 (1/n_i + 1/n_j)) > q(alpha; rows, freedom).

    None when no spread can be estimated: one seed a row, or seeds that agree to the last digit.
    """
    n = np.array([len(sample.values) for sample in samples])
    freedom = int((n - 1).sum())
    if freedom == 0 or not any(np.ptp(sample.values) for sample in samples):
        return None
    means = np.array([np.mean(sample.values) for sample in samples])
    squares = sum(
        float(np.square(np.subtract(sample.values, mean)).sum())
        for sample, mean in zip(samples, means, strict=True)
    )
    error = np.sqrt(squares / freedom / 2 * (1 / n[left] + 1 / n[right]))
    return np.abs(means[left] - means[right]) > _critical(alpha, len(samples), freedom) * error


@cache
def _critical(alpha: float, rows: int, freedom: int) -> float:
    return float(stats.studentized_range.ppf(1 - alpha, rows, freedom)) if rows > 1 else math.inf


def _two_proportions(a: Sample, b: Sample) -> float:
    """p-value of equal shares of right answers; 1 where there is nothing to test."""
    if not (a.images and b.images):
        return 1.0
    # Every seed answers the same test images, so more seeds do not make more images. Treating the
    # two rows' images as independent overstates the error of the difference: ties are favoured.
    shares = [float(np.mean(sample.values)) / 100 for sample in (a, b)]
    pooled = (shares[0] * a.images + shares[1] * b.images) / (a.images + b.images)
    error = math.sqrt(pooled * (1 - pooled) * (1 / a.images + 1 / b.images))
    if error == 0:  # all right or all wrong, both
        return 1.0
    return float(2 * stats.norm.sf(abs(shares[0] - shares[1]) / error))
