"""k-nearest-neighbour classification, without training."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

_QUERIES, _BANK = 2**10, 2**14  # rows compared at a time: 64 MiB of similarities


@torch.no_grad()
def vote(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    k: int,
    temperature: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the classes (Q,) voted for by the k nearest of N labelled features, on the CPU.

    The nearest have the largest cosine similarity s. A neighbour votes for its own class with weight exp(s / T),
    and the class with the largest sum wins (Wu et al. 2018, Sec. 3.4, https://arxiv.org/abs/1805.01978;
    DINO and SimSiam evaluate so too).

    Args:
        queries: (Q, D); bank: (N, D); on any device; moved to `device` in parts.
        labels: of the bank, (N,).
        k: neighbours; all N if there are fewer.
        temperature: T.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
        >>> y = torch.tensor([0, 1, 1])
        >>> vote(bank, bank, y, num_classes=2, k=1, temperature=0.1).tolist()
        [0, 1, 1]
    """
    k = min(k, len(bank))
    labels = labels.to(device)
    found = []
    for part in _normalized(queries, _QUERIES, device):
        nearest = part.new_empty(len(part), 0)
        places = labels.new_empty(len(part), 0)
        start = 0
        for rows in _normalized(bank, _BANK, device):
            similarity = torch.cat([nearest, part @ rows.mT], dim=1)
            here = torch.arange(start, start + len(rows), device=device).expand(len(part), -1)
            start += len(rows)
            nearest, kept = similarity.topk(min(k, similarity.shape[1]), dim=1)
            places = torch.cat([places, here], dim=1).gather(1, kept)
        # The largest weight is 1: exp((s - max s) / T) gives the same vote and cannot overflow.
        weight = ((nearest - nearest[:, :1]) / temperature).exp()
        scores = weight.new_zeros(len(part), num_classes).scatter_add_(1, labels[places], weight)
        found.append(scores.argmax(dim=1).cpu())
    return torch.cat(found)


def _normalized(features: Tensor, rows: int, device: torch.device | str) -> Iterator[Tensor]:
    for part in features.split(rows):
        yield F.normalize(part.to(device), dim=1)
