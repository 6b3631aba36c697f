"""ReActNet-18: a ResNet for binary weights and activations (Liu et al. 2020, arXiv 2003.03488).

A block is one 3x3 convolution with its own shortcut (Bi-Real Net), a learned shift in front of the
sign, and a PReLU between two learned shifts. The sign itself is not part of the network: a policy
quantizes the input of each 3x3 convolution. Without a policy this is the real-valued network.
"""

import torch
from torch import Tensor, nn

from lowbit.backbones.networks.staged import Staged


class Shift(nn.Module):
    """A learned offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, 1, 1)  # (C, 1, 1)


class RPReLU(nn.Sequential):
    """PReLU of x - γ, plus ζ, all three learned per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(Shift(channels), nn.PReLU(channels), Shift(channels))


class ReActBlock(nn.Module):
    """y = RPReLU(BN(conv(x + shift)) + shortcut(x)); the convolution's input is binarized.

    Where the resolution halves, the shortcut is an average pool, a real-valued 1x1 convolution and a
    norm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shift = Shift(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.act = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.shift(x))) + self.downsample(x))


class ReActNet(Staged):
    """Four stages of four blocks, widths 64 to 512: as many 3x3 convolutions as a ResNet-18.

    Args:
        small_images: a 3x3 stride-1 stem without max-pool in place of ImageNet's.
    """

    def __init__(self, *, small_images: bool = False) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = nn.Conv2d(3, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        self.feature_info = [{"num_chs": 64, "reduction": stride, "module": "bn1"}]
        self.stage_names = [f"layer{index}" for index in range(1, 5)]
        channels, reduction = 64, stride * stride
        for name, width in zip(self.stage_names, (64, 128, 256, 512), strict=True):
            step = 1 if name == "layer1" else 2
            first = ReActBlock(channels, width, step)
            others = [ReActBlock(width, width, 1) for _ in range(3)]
            self.add_module(name, nn.Sequential(first, *others))
            channels, reduction = width, reduction * step
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": name})
        self.finish(channels)
        self.draw_convolutions()

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.bn1(self.conv1(x)))
