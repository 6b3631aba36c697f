"""Predict classes with a whole network."""

import torch
from torch import Tensor, nn

from lowbit.data import Center, Images
from lowbit.quant import require_asked, reuse_weights


@torch.no_grad()
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
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with reuse_weights(network), require_asked(network):
            views = images.batches(view, batch_size=batch_size, device=device, workers=workers)
            return torch.cat([network(x).argmax(dim=1) for x in views]).cpu()
    finally:
        network.train(training)
