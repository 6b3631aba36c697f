"""Apply an image network to videos frame by frame and average the features.

A linear classifier of the mean is the mean of the frames' logits, so this is frame averaging
(Temporal Segment Networks, Wang et al. 2016), as in AR-Net's and CoQuant's video networks.
"""

from functools import partial

from torch import Tensor, nn


def average_frames(backbone: nn.Module, frames: int) -> nn.Module:
    """Make a backbone map videos (B, F, 3, H, W) of F `frames` to features (B, D); return it.

    No module is added: names and state dict stay the same.

    Example:
        >>> import torch
        >>> net = average_frames(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), frames=4)
        >>> net(torch.rand(2, 4, 3, 8, 8)).shape
        torch.Size([2, 3])
    """
    backbone.register_forward_pre_hook(_one_by_one)
    backbone.register_forward_hook(partial(_mean, frames=frames))
    return backbone


def _one_by_one(backbone: nn.Module, args: tuple[Tensor]) -> Tensor:
    (videos,) = args
    return videos.flatten(0, 1)  # (B F, 3, H, W)


def _mean(backbone: nn.Module, args: tuple[Tensor], features: Tensor, *, frames: int) -> Tensor:
    return features.unflatten(0, (-1, frames)).mean(1)  # (B, D)
