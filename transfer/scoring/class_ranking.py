"""Mean average precision over classes, for samples that may have several (ActivityNet's metric)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

METRIC = "mAP"


@dataclass(frozen=True)
class ClassRanking:
    """Average precision of each class, in %; of one without samples None.

    `n` are the scored samples.
    """

    n: int
    classes: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Mean over the classes that have samples, in %."""
        known = [value for value in self.classes if value is not None]
        return sum(known) / len(known)


def rank_classes(logits: Tensor, targets: Tensor) -> ClassRanking:
    """Rank all samples by each class's probability, and average precision over its samples.

    AP = sum_n (R_n - R_{n-1}) P_n over the distinct probabilities, falling, as scikit-learn's
    `average_precision_score`: no interpolation, and samples of one probability count together.
    Probabilities are the softmax over classes, as in AR-Net's evaluation of ActivityNet.

    Args:
        logits: (N, C).
        targets: whether a sample has a class, bool (N, C).

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> targets = torch.tensor([[True, False], [False, True], [True, True]])
        >>> [round(value, 2) for value in rank_classes(logits, targets).classes]
        [83.33, 100.0]
    """
    if logits.shape != targets.shape or not len(targets) or not targets.any():
        raise ValueError(
            f"there are logits {tuple(logits.shape)} for targets {tuple(targets.shape)}, or no sample has "
            "a class; no average precision was computed. Score every sample of the split exactly once."
        )
    scores, order = F.softmax(logits.double(), dim=1).sort(dim=0, descending=True)
    hits = targets.gather(0, order).double()  # (N, C)
    found = hits.cumsum(0)
    seen = torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
    # A tie's samples all have the precision at its last one, so that their order does not matter.
    last = torch.ones_like(targets)
    last[:-1] = scores[:-1] != scores[1:]
    at = torch.where(last, torch.arange(len(hits))[:, None], len(hits)).flip(0).cummin(0)[0].flip(0)
    precision = (found / seen).gather(0, at)
    total = hits.sum(0)
    value = 100 * (hits * precision).sum(0) / total.clamp(min=1)
    known = total > 0
    pairs = zip(value.tolist(), known.tolist(), strict=True)
    return ClassRanking(len(hits), tuple(v if k else None for v, k in pairs))


def targets_of(labels: Tensor, targets: Tensor | None, num_classes: int) -> Tensor:
    """Return the targets (N, C), of sets that have one label a sample made from these."""
    return F.one_hot(labels, num_classes).bool() if targets is None else targets
