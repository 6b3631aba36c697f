"""Accuracies of a classifier."""

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
