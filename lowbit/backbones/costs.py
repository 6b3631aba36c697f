"""Size and bit-operations of a backbone on integer hardware, computed without its weights."""

from collections.abc import Iterable

import torch

from lowbit.backbones.networks.registry import create_backbone
from lowbit.backbones.networks.without_values import without_values
from lowbit.quant import Precision, QuantPolicy, costs, quantize


def backbone_costs(
    architecture: str,
    policy: QuantPolicy | str | dict | None,
    precisions: Iterable[Precision | str],
    *,
    image_size: int,
) -> dict[str, dict[str, int]]:
    """Return `weight_bytes` and `bit_operations` of one square image at each precision.

    Computed on the meta device in milliseconds, without memory or random draws. Without a policy
    the network stays in full precision.

    Example:
        >>> backbone_costs("resnet10_slim", "ssql", ["FP", "4w4a"], image_size=32)["4w4a"]
        {'weight_bytes': 161904, 'bit_operations': 100663296}
    """
    with without_values():
        network = create_backbone(architecture)
    with torch.device("meta"):
        if policy is not None:
            quantize(network, policy)
        return costs(network, precisions, torch.empty(1, 3, image_size, image_size))
