"""ResNets for small images, which timm lacks: three-stage CIFAR nets and a slim four-stage one.

Blocks are timm's, so each activation is a module of its own and parameters are named as in
torchvision's ResNet.
"""

import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F


class PadShortcut(nn.Module):
    """Option-A shortcut (He et al. 2016): subsample, then pad new channels with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.stride, self.padding = stride, (extra // 2, extra - extra // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, *self.padding))  # (N, C, H, W): C is padded


class SmallResNet(nn.Module):
    """A basic-block ResNet with a 3x3 stem and no pooling; returns pooled features.

    Args:
        depths: blocks in each stage.
        widths: channels of each stage; the stem has those of the first.
        stem_stride: stride of the stem; stages after the first halve the resolution.
        shortcut: "pad" (option A, no parameters) or "conv" (1x1 convolution and norm).
    """

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...], *, stem_stride: int, shortcut: str
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.conv1 = nn.Conv2d(3, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info = [{"num_chs": channels, "reduction": stem_stride, "module": "act1"}]
        self._stages = [f"layer{index}" for index in range(1, len(depths) + 1)]
        reduction = stem_stride
        for name, depth, width in zip(self._stages, depths, widths, strict=True):
            stride = 1 if name == "layer1" else 2
            reduction *= stride
            blocks = []
            for index in range(depth):
                step = stride if index == 0 else 1
                change = step != 1 or channels != width
                downsample = _shortcut(channels, width, step, shortcut) if change else None
                blocks.append(BasicBlock(channels, width, step, downsample))
                channels = width
            self.add_module(name, nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": name})
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_intermediates(
        self,
        x: Tensor,
        indices: list[int] | None = None,
        *,
        intermediates_only: bool = True,
        stop_early: bool = True,
    ) -> list[Tensor]:
        """Return the feature maps at `indices` of `feature_info`, as timm's networks do."""
        wanted = list(range(len(self.feature_info))) if indices is None else indices
        x = self.act1(self.bn1(self.conv1(x)))
        maps = [x] if 0 in wanted else []
        for index, name in enumerate(self._stages, start=1):
            if stop_early and index > max(wanted):
                break
            x = getattr(self, name)(x)
            if index in wanted:
                maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (N, C, H, W)."""
        return self.forward_intermediates(x, [len(self._stages)])[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features, (N, C)."""
        return torch.flatten(self.global_pool(self.forward_features(x)), 1)


def _shortcut(in_channels: int, out_channels: int, stride: int, kind: str) -> nn.Module:
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
