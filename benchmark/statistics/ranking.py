"""Statistics over seeds: means with intervals, paired differences, and ranks with ties.

Everything here is a pure function of numbers; what may be compared with what is decided in
`benchmark/results/comparability.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from lowbit.benchmark.statistics.tukey import critical_values

ALPHA = 0.05  # two-sided; intervals cover 1 - ALPHA
ROUNDING = 1e-9  # percentage points: numbers this close are equal

Score = Callable[[slice], np.ndarray]  # some rows against all: (rows, R) statistics, symmetric
PValue = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Summary:
    """A sample's mean, its sample standard deviation and a t-interval of the mean.

    With a single value there is no spread: `sd`, `low` and `high` are NaN.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float

    @property
    def varies(self) -> bool:
        """Whether there is a spread to test with, beyond rounding."""
        return self.sd > ROUNDING

    @property
    def p(self) -> float:
        """Two-sided p-value of a t-test that the mean is 0; NaN without a spread."""
        if not self.varies:
            return math.nan
        return float(2 * stdtr(self.n - 1, -abs(self.mean) / (self.sd / math.sqrt(self.n))))


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
    half = float(half_width(sd, n, alpha=alpha))
    return Summary(mean, sd, n, mean - half, mean + half)


def half_width(
    sd: np.ndarray | float, n: np.ndarray | int, *, alpha: float = ALPHA
) -> np.ndarray | float:
    """Return half the width of Student's interval of the mean of n values; NaN for a single one.

    Example:
        >>> half_width(np.array([1.0, 1.0]), np.array([3, 1])).round(3).tolist()
        [2.484, nan]
    """
    return standard_errors(np.subtract(n, 1), alpha=alpha) * sd / np.sqrt(n)


def standard_errors(freedom: np.ndarray | float, *, alpha: float = ALPHA) -> np.ndarray | float:
    """Return half the width of Student's interval in standard errors, at these degrees of freedom.

    NaN where there are none.

    Example:
        >>> standard_errors(np.array([2, 11.5, 0])).round(3).tolist()
        [4.303, 2.189, nan]
    """
    values, where = np.unique(freedom, return_inverse=True)  # few, of however many samples
    return stdtrit(values, 1 - alpha / 2)[where].reshape(np.shape(freedom))


def paired_difference(a: Sequence[float], b: Sequence[float], *, alpha: float = ALPHA) -> Summary:
    """Summarize a - b over pairs that share everything else (seed, data set, precision).

    The interval is that of the paired t-test: it excludes zero exactly when the test rejects.

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


@dataclass(frozen=True)
class Sample:
    """One row's values, one per seed, in the unit of its metric.

    Attributes:
        values: at least one number; of a method, the mean of each pretraining seed.
        stderr: standard error of the row's mean over the test images; NaN: not known.
        images: how many test images that is over; 0: not known.
        deviations: (images,) what each image adds to the error over the images, so that the squares
            of the difference of two rows sum to the squared error of their difference; None: not known.
        answered: which images those are; rows are paired where it is equal.
        unit: what a single image is worth where the metric counts right answers; else 0.
    """

    values: tuple[float, ...]
    stderr: float = math.nan
    images: int = 0
    deviations: np.ndarray | None = None
    answered: str = ""
    unit: float = 0.0


def sample_over_sets(numbers: np.ndarray) -> Sample:
    """Return a method's mean over data sets as a row: they stand for the images.

    Args:
        numbers: (pretrainings, data sets), at least two of each. A pretraining counts once, with its mean
            over the data sets, which share its effect.
    """
    sets = numbers.shape[1]
    means = numbers.mean(axis=0)
    return Sample(
        tuple(numbers.mean(axis=1)),
        images=sets,
        deviations=(means - means.mean()) / math.sqrt(sets * (sets - 1)),
        answered="data sets",
    )


def compare_samples(a: Sample, b: Sample) -> tuple[Summary, float]:
    """Return a - b with its 95 % interval, and the p-value of no difference: the test of two rows.

    `rank_groups` tells the two apart where the interval excludes 0, but for its rounding of the degrees of
    freedom. NaN where the error over the images is not known.

    Example:
        >>> found, p = compare_samples(Sample((93.0, 94.0), stderr=0.5), Sample((90.0, 90.5), stderr=0.5))
        >>> found.mean, round(found.low, 2), round(p, 3)
        (3.25, 1.31, 0.003)
    """
    values = [np.asarray(side.values, dtype=float) for side in (a, b)]
    freedom = sum(map(len, values)) - 2
    squares = sum(np.square(v - v.mean()).sum() for v in values)
    seeds = squares / max(freedom, 1) * sum(1 / len(v) for v in values)
    images = float(image_variance([a, b])(slice(0, 1))[0, 1])
    mean = float(values[0].mean() - values[1].mean())
    return add_errors(mean, seeds, freedom, images, min(a.images or math.inf, b.images or math.inf))


def add_errors(
    mean: float, seeds: float, freedom: float, images: float, count: float
) -> tuple[Summary, float]:
    """Return a difference with its interval and p-value, of its variances over seeds and images.

    Args:
        mean: the difference.
        seeds, freedom: its variance over seeds, and the degrees of freedom of that.
        images, count: its variance over the images, and how many there are.
    """
    error = math.sqrt(seeds + images)
    if not error > ROUNDING:  # NaN: not known
        return Summary(mean, math.nan, 1, math.nan, math.nan), math.nan
    found = error**4 / (seeds**2 / max(freedom, 1) + images**2 / max(count - 1, 1))
    half = float(stdtrit(found, 1 - ALPHA / 2)) * error
    p = float(2 * stdtr(found, -abs(mean) / error))
    return Summary(mean, error, 1, mean - half, mean + half), p


def rank_groups(samples: Sequence[Sample], *, alpha: float = ALPHA) -> list[int]:
    """Rank rows, larger being better: 1 + the number of rows found better.

    Rows that cannot be told apart from the best all have rank 1, so the first group is the answer to
    "which of these may be the best?". Being told apart is not transitive (a may tie with b and b with
    c while a beats c), hence a count instead of a partition.

    The error of a difference adds up what seeds and test images each contribute: the variance over
    seeds, pooled over the rows so that three seeds a row are enough to see something, and the variance
    over the images, paired where both rows' answers to the same images are known (McNemar's, with two
    images added that one side each gets right) and else as if of two samples, which favours ties. The
    degrees of freedom are Satterthwaite's, the critical value that of Tukey's range over all pairs:
    the chance that any row is wrongly called worse is at most `alpha`, whatever the number of rows.

    It assumes one spread over seeds for all rows; a row with one seed is tested with the spread of the
    others. Where no row has several seeds, or they agree to the last digit, images alone decide. A row
    whose error over images is not known is tied with every other.

    Example:
        >>> seeds = [(93.0, 93.4, 93.2), (93.1, 93.3, 93.5), (80.1, 80.4, 80.2)]
        >>> rank_groups([Sample(values, stderr=1.1) for values in seeds])
        [1, 1, 3]
    """
    means = np.array([np.mean(sample.values) for sample in samples])
    n = np.array([len(sample.values) for sample in samples])
    freedom = int((n - 1).sum())
    centered = np.concatenate([[0.0], *(np.subtract(s.values, np.mean(s.values)) for s in samples)])
    spread = float(np.square(centered).sum()) / max(freedom, 1)
    spread = spread if spread > ROUNDING**2 else 0.0
    over_images = image_variance(samples)
    images = np.array([sample.images or np.inf for sample in samples])

    def score(rows: slice) -> np.ndarray:
        """|difference| in critical values."""
        seeds = spread * (1 / n[rows, None] + 1 / n)
        shared = over_images(rows)
        variance = seeds + shared
        count = np.minimum(images[rows, None], images)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = variance**2 / (
                seeds**2 / max(freedom, 1) + shared**2 / np.maximum(count - 1, 1)
            )
            range_ = np.abs(means[rows, None] - means) / np.sqrt(variance / 2)
        return np.nan_to_num(range_ / critical_values(alpha, len(samples), found), nan=0.0)

    return _ranks(means, score, 1.0)


def image_variance(samples: Sequence[Sample]) -> Score:
    """Return the variances of differences over the test images; NaN where it is not known."""
    own = np.square([sample.stderr for sample in samples])
    smoothing = 2 * np.square([sample.unit for sample in samples])
    answered = np.array([s.answered if s.deviations is not None else "" for s in samples])
    places = [np.flatnonzero(answered == key) for key in sorted(set(answered.tolist()) - {""})]
    known = [(at, np.stack([samples[i].deviations for i in at])) for at in places]
    for at, deviations in known:
        own[at] = np.square(deviations).sum(axis=1)

    def variance(rows: slice) -> np.ndarray:
        together = np.zeros((len(own[rows]), len(own)))  # twice the covariance
        first = rows.start or 0
        for at, deviations in known:
            inside = (at >= first) & (at < first + len(together))
            together[np.ix_(at[inside] - first, at)] = 2 * deviations[inside] @ deviations.T
        found = np.maximum(own[rows, None] + own - together, 0)
        return found + np.maximum(smoothing[rows, None], smoothing)

    return variance


def rank_by_holm(
    values: np.ndarray, score: Score, p_value: PValue, *, alpha: float = ALPHA
) -> list[int]:
    """Rank rows as `rank_groups` does, by a test of every pair, corrected by Holm over all pairs.

    Args:
        values: (R,) larger being better.
        score: the tests' statistics of some rows against all; 0 where nothing can be tested.
        p_value: of statistics; it falls as they rise.
        alpha: the chance of a single false claim.
    """
    rows = len(values)
    found = [
        scores[np.arange(scores.shape[1]) < np.arange(rows)[part, None]]  # every pair once
        for part in _blocks(rows)
        for scores in [score(part)]
    ]
    kept = np.concatenate(found or [np.zeros(0)])
    kept = np.sort(kept)[::-1]
    levels = alpha / np.arange(len(kept), 0, -1)
    return _ranks(values, score, _first_failing(kept, p_value, levels))


def _first_failing(scores: np.ndarray, p_value: PValue, levels: np.ndarray) -> float:
    """Return the first of falling scores whose p-value is over its level; 0 if none is."""
    for start in range(0, len(scores), 1024):
        part = slice(start, start + 1024)
        if p_value(scores[part][-1:])[0] <= levels[start]:
            continue  # p and the levels rise: nothing between fails, and p is slow to compute
        failing = np.flatnonzero(p_value(scores[part]) > levels[part])
        if len(failing):
            return float(scores[part][failing[0]])
    return 0.0


def _ranks(values: np.ndarray, score: Score, bound: float) -> list[int]:
    """Rank each row as 1 + the number of better rows whose score exceeds the bound."""
    ranks: list[int] = []
    for part in _blocks(len(values)):
        better = (values > values[part, None]) & (score(part) > bound)
        ranks += (1 + better.sum(axis=1)).tolist()
    return ranks


def _blocks(rows: int) -> Iterator[slice]:
    """Yield slices small enough that their pairs take a few MB, however many rows there are."""
    return (slice(start, min(start + 128, rows)) for start in range(0, rows, 128))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust p-values of one family by Holm's step-down method; compare the result with the level.

    The probability of any false claim in the family is at most the level, however the tests depend on each
    other. The k-th smallest of m is multiplied by m - k + 1, then raised to the largest one before it.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted
