"""Create networks by name and load checkpoints.

Example:
    >>> import torch
    >>> from lowbit.backbones import create_backbone, pyramid_info
    >>> net = create_backbone("resnet10_slim")
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    >>> [(level.name, level.channels, level.stride) for level in pyramid_info(net)]
    [('res2', 16, 2), ('res3', 32, 4), ('res4', 64, 8), ('res5', 128, 16)]
"""

from lowbit.backbones.checkpoints.load import (
    CheckpointError,
    LoadReport,
    load_backbone,
    save_backbone,
)
from lowbit.backbones.networks.feature_pyramid import Level, pyramid, pyramid_info
from lowbit.backbones.networks.registry import BACKBONES, create_backbone, list_backbones

__all__ = [
    "BACKBONES",
    "CheckpointError",
    "Level",
    "LoadReport",
    "create_backbone",
    "list_backbones",
    "load_backbone",
    "pyramid",
    "pyramid_info",
    "save_backbone",
]
