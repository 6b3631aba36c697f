"""Accuracies of a classifier, with their sampling error over test images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95  # coverage of the intervals
_DRAWS = 4_000  # bootstrap draws, for intervals without a closed form
_AT_ONCE = 1 << 20  # numbers drawn at a time


@dataclass(frozen=True)
class Accuracy:
    """Correct predictions per class; accuracies are in %.

    `counts` are the images of each class, `correct` the correctly classified ones.
    """

    counts: tuple[int, ...]
    correct: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of scored images."""
        return sum(self.counts)

    @property
    def top1(self) -> float:
        """Share of correctly classified images, in %."""
        return 100 * sum(self.correct) / self.n

    @property
    def mean_per_class(self) -> float:
        """Mean of the class accuracies, in %, over the classes that have images."""
        shares = [c / n for c, n in self._classes]
        return 100 * sum(shares) / len(shares)

    def stderr(self, metric: str) -> float:
        """Return the standard error of `top1` or `mean_per_class` over test images, in %.

        Both are closed forms of the bootstrap's limit for many draws. With p the share
        of correct answers: sqrt(p (1 - p) / n) if all n images are resampled; within each of C
        classes, sqrt(sum_c p_c (1 - p_c) / n_c) / C, because a mean per class fixes the classes.
        A class of one image adds nothing: its spread is unknown, and the error too small.

        Example:
            >>> a = Accuracy(counts=(3, 1), correct=(2, 1))
            >>> round(a.stderr("top1"), 2), round(a.stderr("mean_per_class"), 2)
            (21.65, 13.61)
        """
        if metric == "top1":
            return _stderr([(sum(self.correct), self.n)])
        assert metric == "mean_per_class", metric
        return _stderr(self._classes)

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the 95 % percentile bootstrap interval over test images of an accuracy, in %.

        If all n images are resampled, the number of correct ones is Binomial(n, p): `top1` uses its
        quantiles, which is the bootstrap of infinitely many draws. For `mean_per_class` the images are
        drawn within their classes, 4,000 times, with a fixed seed. None if no draw differs
        (all correct or all wrong): resampling then gives no information about the error.

        Example:
            >>> a = Accuracy(counts=(300, 100), correct=(240, 60))
            >>> a.interval("top1")
            (70.75, 79.25)
            >>> [round(end) for end in a.interval("mean_per_class")]
            [65, 75]
        """
        if self.stderr(metric) == 0:
            return None
        ends = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        if metric == "top1":
            # Here: slow to import, and used once, at the end of a job.
            from scipy.stats import binom

            low, high = binom.ppf(ends, self.n, self.top1 / 100) / self.n
        else:
            right, images = np.array(self._classes).T  # (C,) each
            draw = np.random.default_rng(0)
            at_once = max(1, _AT_ONCE // len(images))
            means = [
                (draw.binomial(images, right / images, (rows, len(images))) / images).mean(axis=1)
                for start in range(0, _DRAWS, at_once)
                if (rows := min(at_once, _DRAWS - start))
            ]
            low, high = np.quantile(np.concatenate(means), ends)
        return 100 * float(low), 100 * float(high)

    @property
    def _classes(self) -> list[tuple[int, int]]:
        """Correct answers and images of each class that has images."""
        return [(c, n) for c, n in zip(self.correct, self.counts, strict=True) if n]


def _stderr(strata: list[tuple[int, int]]) -> float:
    """Return the error, in %, of the mean of the strata's shares, each (correct, images)."""
    variance = sum(c / n * (1 - c / n) / n for c, n in strata)
    return 100 * math.sqrt(variance) / len(strata)


def accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> Accuracy:
    """Compare predicted classes (N,) with labels (N,), both integers in [0, num_classes).

    Example:
        >>> a = accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]), 2)
        >>> a.top1, round(a.mean_per_class, 2), a.n
        (75.0, 83.33, 4)
    """
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(
            f"there are {len(predictions)} predictions for {len(labels)} labels; no accuracy was "
            "computed. Predict every image of the split exactly once."
        )
    counts = torch.bincount(labels, minlength=num_classes)
    correct = torch.bincount(labels[predictions == labels], minlength=num_classes)
    return Accuracy(tuple(counts.tolist()), tuple(correct.tolist()))
