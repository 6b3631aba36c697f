"""Accuracies of a classifier, with their sampling error over test images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

INTERVAL = "wilson"
_NORMAL = 1.959964  # quantile for intervals of 95 %
_PRIOR = 2  # images that a class's share is moved towards all images' by


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

    def interval(self, metric: str) -> tuple[float, float]:
        """Return the 95 % interval of an accuracy over test images, in %; it contains the accuracy.

        For `top1` Wilson's score interval of n images. For `mean_per_class` the same of as many images
        as would give a share that error: n_e = p (1 - p) / sum_c (p_c (1 - p_c) / n_c) * C^2, with p_c
        moved towards the share of all images as if two more of these were of the class, and at most
        C^2 / sum_c (1 / n_c). So it has a width where every image was right, and with classes of one
        image.

        Example:
            >>> [round(end, 1) for end in Accuracy(counts=(400,), correct=(300,)).interval("top1")]
            [70.5, 79.0]
            >>> [round(end, 1) for end in Accuracy(counts=(400,), correct=(400,)).interval("top1")]
            [99.0, 100.0]
        """
        if metric == "top1":
            return _wilson(self.top1 / 100, self.n)
        assert metric == "mean_per_class", metric
        p, pooled = self.mean_per_class / 100, self.top1 / 100
        classes = len(self._classes)
        images = classes**2 / sum(1 / n for _, n in self._classes)
        moved = ((c + _PRIOR * pooled) / (n + _PRIOR) for c, n in self._classes)
        strata = zip(moved, (n for _, n in self._classes), strict=True)
        variance = sum(q * (1 - q) / n for q, n in strata) / classes**2
        if variance > 0:
            images = min(images, p * (1 - p) / variance)
        return _wilson(p, max(images, 1.0))

    @property
    def _classes(self) -> list[tuple[int, int]]:
        """Correct answers and images of each class that has images."""
        return [(c, n) for c, n in zip(self.correct, self.counts, strict=True) if n]


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval of a share p of n images, in % (Wilson 1927)."""
    middle = p + _NORMAL**2 / (2 * n)
    half = _NORMAL * math.sqrt(p * (1 - p) / n + (_NORMAL / (2 * n)) ** 2)
    ends = ((middle + side * half) / (1 + _NORMAL**2 / n) for side in (-1, 1))
    low, high = (100 * min(max(end, 0.0), 1.0) for end in ends)
    return min(low, 100 * p), max(high, 100 * p)  # rounding at 0 and 1


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
