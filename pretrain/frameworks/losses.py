"""Contrastive cross entropies of features."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.pretrain.frameworks.ranks import gather_rows
from lowbit.training.distributed import rank


def unit(x: Tensor) -> Tensor:
    """Return rows (N, dim) at length 1."""
    return F.normalize(x, dim=1)


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Return the normalized temperature-scaled cross entropy of two sets of features (N, dim).

    Row i of `a` and row i of `b` are each other's positive; the 2N - 2 other rows of both, N counting
    the rows of all ranks, are negatives. No similarity is clamped. Symmetric in a and b.

    Example:
        >>> x = torch.eye(2)
        >>> round(float(nt_xent(x, x, temperature=1.0)), 4)       # log(1 + 2 / e)
        0.5514
    """
    n = len(a)
    features = unit(torch.cat([a, b]))  # (2n, dim), this rank's
    logits = features @ gather_rows(features).T / temperature  # (2n, 2N)
    anchors = torch.arange(2 * n, device=a.device)
    first = rank() * 2 * n  # of this rank's rows among all
    logits = logits.scatter(1, (first + anchors).unsqueeze(1), -torch.inf)  # not with itself
    return F.cross_entropy(logits, first + anchors.roll(n))  # i <-> i + n


def info_nce(q: Tensor, keys: Tensor, *, temperature: float) -> Tensor:
    """Return the cross entropy of finding each query's key among the keys of all ranks.

    Row i of `keys` (N, dim) is the positive of row i of `q` (N, dim).
    """
    logits = unit(q) @ gather_rows(unit(keys)).T / temperature
    positives = rank() * len(q) + torch.arange(len(q), device=q.device)
    return F.cross_entropy(logits, positives)


def info_nce_queue(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Return the cross entropy of finding each query's key among a queue of others (MoCo Eq. 1).

    Args:
        q: queries, (N, dim), of any length.
        k: their keys, (N, dim), of length 1.
        queue: negatives, (K, dim), of length 1.
        temperature: tau.
    """
    q = unit(q)
    positive = (q * k).sum(1, keepdim=True)  # (N, 1)
    logits = torch.cat([positive, q @ queue.T], dim=1) / temperature  # (N, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
