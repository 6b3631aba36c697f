"""MobileNetV2 for 32x32 images as in github.com/kuangliu/pytorch-cifar, the version CoQuant trains.

It differs from MobileNetV2 (Sandler et al. 2018; `mobilenetv2_cifar`): each block has an expansion,
even of factor 1, activations are ReLU, and a stride-1 block that changes its width has a shortcut
with a 1x1 convolution.
"""

from torch import Tensor, nn

from lowbit.backbones.networks.staged import Staged

# (expansion, channels, blocks, stride of the first); the second stage's and the stem's are 1 here.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_LEVELS = ("layer2", "layer3", "layer5", "layer7")  # the last stage of each resolution


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut wherever the stride is 1."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride == 1:
            self.downsample = nn.Identity()
            if in_channels != out_channels:
                self.downsample = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, bias=False),
                    nn.BatchNorm2d(out_channels),
                )

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return y if self.downsample is None else y + self.downsample(x)


class KuangliuMobileNetV2(Staged):
    """The network; its pooled features have 1280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info = [{"num_chs": 32, "reduction": 1, "module": "act1"}]
        self.stage_names = [f"layer{index}" for index in range(1, len(_STAGES) + 1)]
        channels, reduction = 32, 1
        for name, (expansion, width, depth, stride) in zip(self.stage_names, _STAGES, strict=True):
            blocks = []
            for index in range(depth):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, width, expansion, step))
                channels = width
            self.add_module(name, nn.Sequential(*blocks))
            reduction *= stride
            if name in _LEVELS:
                level = {"num_chs": width, "reduction": reduction, "module": name}
                self.feature_info.append(level)
        self.conv2 = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.act2 = nn.ReLU(inplace=True)
        self.finish(1280)

    def stem(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv1(x)))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (N, 1280, H, W)."""
        return self.act2(self.bn2(self.conv2(super().forward_features(x))))
