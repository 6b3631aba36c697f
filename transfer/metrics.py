"""Accuracies of a classifier, and how far another draw of test images would move them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Accuracy:
    """Count what was right, per class; the accuracies are in %.

    `counts` are the images of each class, `correct` those of them that were recognized.
    """

    counts: tuple[int, ...]
    correct: tuple[int, ...]

    @property
    def n(self) -> int:
        """Images scored."""
        return sum(self.counts)

    @property
    def top1(self) -> float:
        """Share of the images that were recognized, in %."""
        return 100 * sum(self.correct) / self.n

    @property
    def mean_per_class(self) -> float:
        """Mean of the classes' own accuracies, in %, over the classes that have images."""
        shares = [c / n for c, n in zip(self.correct, self.counts, strict=True) if n]
        return 100 * sum(shares) / len(shares)

    def stderr(self, metric: str) -> float:
        """Return the standard error of `top1` or `mean_per_class` over test images, in %.

        Both are closed forms of what a bootstrap tends to with the number of its draws: p the share
        of right answers, sqrt(p (1 - p) / n) where all n images are drawn anew; within each of C
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
        return _stderr([(c, n) for c, n in zip(self.correct, self.counts, strict=True) if n])


def _stderr(strata: list[tuple[int, int]]) -> float:
    """Return the error, in %, of the mean of the strata's shares, each (right, images)."""
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
            f"{len(predictions)} predictions came for {len(labels)} labels; no accuracy was "
            "computed. Predict every image of the split exactly once."
        )
    counts = torch.bincount(labels, minlength=num_classes)
    correct = torch.bincount(labels[predictions == labels], minlength=num_classes)
    return Accuracy(tuple(counts.tolist()), tuple(correct.tolist()))
