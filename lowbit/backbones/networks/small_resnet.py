"""ResNets for small images, which timm lacks: three-stage CIFAR nets and a slim four-stage one.

Blocks are timm's, so each activation is a separate module and parameters are named as in
torchvision's ResNet.
"""

from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.backbones.networks.staged import Staged


class PadShortcut(nn.Module):
    """Option-A shortcut (He et al. 2016): subsample, then pad new channels with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.stride, self.padding = stride, (extra // 2, extra - extra // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, *self.padding))  # (N, C, H, W): C is padded


class SmallResNet(Staged):
    """A basic-block ResNet with a 3x3 stem and no pooling; returns pooled features.

    Args:
        depths: blocks in each stage.
        widths: channels of each stage; the stem has as many as the first.
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
        self.stage_names = [f"layer{index}" for index in range(1, len(depths) + 1)]
        reduction = stem_stride
        for name, depth, width in zip(self.stage_names, depths, widths, strict=True):
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
        self.finish(channels)
        self.draw_convolutions()

    def stem(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv1(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int, kind: str) -> nn.Module:
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
