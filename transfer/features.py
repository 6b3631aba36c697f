"""Features of a frozen backbone, one set a precision."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quant import Precision, reuse_weights, set_precision


@torch.no_grad()
def extract(
    backbone: nn.Module,
    images: Tensor,
    view: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
) -> Tensor:
    """Return the features (N, D) of uint8 images (N, 3, H, W), on the backbone's device.

    The backbone must be frozen, which means eval(): a training-mode batch norm would update the
    buffers of a network that is only looked at.
    """
    assert not backbone.training, "a frozen backbone is in eval mode"
    device = next(backbone.parameters()).device
    features = None
    with reuse_weights(backbone):
        for start in range(0, len(images), batch_size):
            batch = backbone(view(images[start : start + batch_size].to(device)))  # (B, D)
            if features is None:
                features = batch.new_empty(len(images), batch.shape[1])
            features[start : start + batch_size] = batch
    return features


def extract_at(
    backbone: nn.Module,
    images: Tensor,
    *,
    make_view: Callable[[], Callable[[Tensor], Tensor]],
    precisions: Iterable[str],
    batch_size: int,
) -> Tensor:
    """Return the features at every precision, (P, N, D).

    `make_view` makes the view anew for each precision, so that random views are the same for all.
    """
    features = []
    for precision in precisions:
        set_precision(backbone, Precision.parse(precision))
        features.append(extract(backbone, images, make_view(), batch_size=batch_size))
    return torch.stack(features)
