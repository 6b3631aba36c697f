"""Weighted k-nearest-neighbour accuracy of the features during training.

It does not affect training: it works on a copy, draws no random numbers and sees only train and val
images, never test ones.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.data.views.training_views import ViewSource
from lowbit.quant import (
    FP,
    Precision,
    QuantPolicy,
    calibrate,
    dequantize,
    quantize,
    require_asked,
    set_precision,
)
from lowbit.training import distributed

K, TEMPERATURE = 200, 0.1  # k: Wu et al. 2018; T: SimSiam's monitor
PRECISIONS = (FP, Precision(4, 4))
_CALIBRATION = 512  # images
_BATCH = 512


@torch.no_grad()
def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> float:
    """Return the share, in percent, of queries that the weighted vote classifies correctly.

    The k features of the bank with the largest cosine s vote with weight exp(s / T).

    Args:
        bank, queries: features (M, D) and (N, D).
        bank_labels, labels: int64 (M,) and (N,).
        k: neighbours, or all of a smaller bank.
        temperature: T.

    Example:
        >>> bank, labels = torch.eye(3), torch.arange(3)
        >>> knn_accuracy(bank, labels, torch.eye(3)[[0, 2, 2]], torch.tensor([0, 1, 2]), k=1)
        66.66666666666667
    """
    bank = F.normalize(bank, dim=1)
    right = 0
    for part, truth in zip(queries.split(_BATCH), labels.split(_BATCH), strict=True):
        cosine, near = (F.normalize(part, dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = cosine.new_zeros(len(part), int(bank_labels.max()) + 1)
        votes.scatter_add_(1, bank_labels[near], (cosine / temperature).exp())
        right += int((votes.argmax(1) == truth).sum())
    return 100 * right / len(labels)


def knn_accuracies(
    backbone: nn.Module,
    policy: QuantPolicy | str,
    *,
    train: ViewSource,
    val: ViewSource,
    precisions: Iterable[Precision] = PRECISIONS,
) -> dict[str, float]:
    """Return the accuracy of val images among train images, by precision.

    Every process of a distributed run must call this and gets the same result: scales are set from
    activations that all of them see.

    Args:
        backbone: in training, quantized or not; it is copied.
        policy: how the copy is quantized.
        train, val: the images; not the training source, whose random state would change.
        precisions: to measure at.
    """
    network = dequantize(deepcopy(backbone)).eval()
    distributed.broadcast(network)  # the statistics of batch norms differ between processes
    quantize(network, policy)
    evenly = torch.arange(0, len(train), max(1, len(train) // _CALIBRATION))
    calibrate(network, list(_images(train, evenly[:_CALIBRATION])))
    found = {}
    for precision in precisions:
        set_precision(network, precision)
        bank, queries = (_features(network, source) for source in (train, val))
        bank_labels, labels = (s.labels.to(bank.device) for s in (train, val))
        found[str(precision)] = knn_accuracy(bank, bank_labels, queries, labels)
    return found


@torch.no_grad()
def _features(network: nn.Module, source: ViewSource) -> Tensor:
    with require_asked(network):
        return torch.cat([network(x) for x in _images(source, torch.arange(len(source)))])


def _images(source: ViewSource, positions: Tensor) -> Iterator[Tensor]:
    """Yield the images at the given positions in batches, without augmentation."""
    whole = len(positions) // _BATCH * _BATCH
    for rows in (positions[:whole].view(-1, _BATCH), positions[None, whole:]):
        if rows.numel():
            for batch in source.epoch(rows, epoch=0):
                yield batch.image()
