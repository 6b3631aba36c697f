"""Predict classes with a whole network."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lowbit.data import Center, Images
from lowbit.quant import require_asked, reuse_weights


def predicted_classes(
    network: nn.Module,
    images: Images,
    view: Center,
    *,
    batch_size: int,
    workers: int | None = None,
) -> Tensor:
    """Return the classes (N,) of all images, on the CPU, at the network's precision.

    In eval mode, each weight quantized once; the network's mode is restored.

    Raises:
        ValueError: a quantizer that is on was never asked.
    """
    return _predict(network, images, view, _highest, batch_size, workers)


def predicted_logits(
    network: nn.Module,
    images: Images,
    view: Center,
    *,
    batch_size: int,
    workers: int | None = None,
) -> Tensor:
    """Return the logits (N, C) of all images, as `predicted_classes` otherwise."""
    return _predict(network, images, view, Tensor.float, batch_size, workers)


def _highest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1)


@torch.no_grad()
def _predict(
    network: nn.Module,
    images: Images,
    view: Center,
    read: Callable[[Tensor], Tensor],
    batch_size: int,
    workers: int | None,
) -> Tensor:
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with reuse_weights(network), require_asked(network):
            views = images.batches(view, batch_size=batch_size, device=device, workers=workers)
            return torch.cat([read(network(x)) for x in views]).cpu()
    finally:
        network.train(training)
