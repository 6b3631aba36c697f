"""Coverage of intervals of accuracies, over all images and as a mean over classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lowbit.transfer.scoring.accuracy import Accuracy

WAYS = ("ours", "percentile", "normal")
_ENDS = np.array([0.025, 0.975])
KINDS = {
    "40 images, one share": [40],
    "300 images, one share": [300],
    "10,000 images, one share": [10_000],
    "10 classes of 100": [100] * 10,
    "100 classes of 5": [5] * 100,
    "102 classes of 3 to 60": np.linspace(3, 60, 102).astype(int).tolist(),
    "100 classes of 1 to 200, as 1/rank": np.maximum(1, 200 // np.arange(1, 101)).tolist(),
}
SHARES = (0.5, 0.8, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True)
class Row:
    """Share of the sets, in %, whose interval holds the true accuracy, by way."""

    kind: str
    truth: float
    covered: dict[str, float]


def rows(replications: int) -> Iterator[Row]:
    """Measure every kind of test set at every accuracy; classes differ by a fifth of what is missing."""
    draw = np.random.default_rng(0)
    for kind, counts in KINDS.items():
        for share in SHARES:
            of_class = np.clip(draw.normal(share, (1 - share) / 5, len(counts)), 0, 1)
            right = draw.binomial(counts, of_class, size=(replications, len(counts)))
            truth = 100 * of_class.mean()
            held = [_holds(row, np.array(counts), truth, draw) for row in right]
            covered = 100 * np.mean(held, axis=0)
            yield Row(kind, float(truth), dict(zip(WAYS, covered.tolist(), strict=True)))


def _holds(
    right: np.ndarray, counts: np.ndarray, truth: float, draw: np.random.Generator
) -> list[bool]:
    metric = "top1" if len(counts) == 1 else "mean_per_class"
    found = Accuracy(tuple(counts.tolist()), tuple(right.tolist()))
    if metric == "top1":
        percentile = 100 * stats.binom.ppf(_ENDS, counts[0], right[0] / counts[0]) / counts[0]
    else:
        drawn = draw.binomial(counts, right / counts, size=(400, len(counts))) / counts
        percentile = 100 * np.quantile(drawn.mean(axis=1), _ENDS)
    value, half = getattr(found, metric), stats.norm.ppf(_ENDS[1]) * found.stderr(metric)
    ends = (found.interval(metric), percentile, (value - half, value + half))
    return [bool(low - 1e-9 <= truth <= high + 1e-9) for low, high in ends]
