"""YOLOv4's neck: spatial pyramid pooling, then a path down the levels and a path up again.

The convolutions are those of the published network at `channels` 128, each with a norm and a leaky
ReLU: He et al. 2014 (pooling), Liu et al. 2018 (PANet, here with concatenation), Bochkovskiy et al. 2020.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module] | None

SLOPE = 0.1  # of the leaky ReLU below zero
_POOLS = (5, 9, 13)  # sides of the pooling windows


class PathAggregation(nn.Module):
    """Three levels of a network to three of `channels`, twice and four times as many channels.

    Args:
        stages: channels of the network's three levels, from fine to coarse.
        channels: of the finest level; 128 in the published network.
        norm: makes the norm of a number of channels; None: no norm, but a bias.
        relu: put a ReLU on the outputs, so that the head's inputs are non-negative.
    """

    def __init__(
        self, stages: Sequence[int], *, channels: int, norm: Norm, relu: bool = False
    ) -> None:
        super().__init__()
        c3, c4, c5 = channels, 2 * channels, 4 * channels
        self.spp_in = _alternating(stages[2], c5, count=3, norm=norm)
        self.spp_out = _alternating((1 + len(_POOLS)) * c5, c5, count=3, norm=norm)
        self.lateral = nn.ModuleList(
            [convolution(stages[0], c3, 1, norm=norm), convolution(stages[1], c4, 1, norm=norm)]
        )
        self.reduce = nn.ModuleList(
            [convolution(c4, c3, 1, norm=norm), convolution(c5, c4, 1, norm=norm)]
        )
        self.merge_down = nn.ModuleList(
            [
                _alternating(2 * c3, c3, count=5, norm=norm),
                _alternating(2 * c4, c4, count=5, norm=norm),
            ]
        )
        self.shrink = nn.ModuleList(
            [
                convolution(c3, c4, 3, stride=2, norm=norm),
                convolution(c4, c5, 3, stride=2, norm=norm),
            ]
        )
        self.merge_up = nn.ModuleList(
            [
                _alternating(2 * c4, c4, count=5, norm=norm),
                _alternating(2 * c5, c5, count=5, norm=norm),
            ]
        )
        self.relu = relu

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels from fine to coarse; each stage has half the side of the one before."""
        x = self.spp_in(stages[2])
        pooled = [F.max_pool2d(x, side, stride=1, padding=side // 2) for side in _POOLS]
        top = self.spp_out(torch.cat([x, *pooled], 1))
        middle = self.merge_down[1](
            torch.cat([self.lateral[1](stages[1]), _doubled(self.reduce[1](top))], 1)
        )
        fine = self.merge_down[0](
            torch.cat([self.lateral[0](stages[0]), _doubled(self.reduce[0](middle))], 1)
        )
        middle = self.merge_up[0](torch.cat([self.shrink[0](fine), middle], 1))
        top = self.merge_up[1](torch.cat([self.shrink[1](middle), top], 1))
        levels = [fine, middle, top]
        return [F.relu(level) for level in levels] if self.relu else levels


def convolution(
    inputs: int, outputs: int, side: int, *, norm: Norm, stride: int = 1
) -> nn.Sequential:
    """Return a convolution with its norm and a leaky ReLU, as `conv`, `norm` and `activation`."""
    conv = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE, nonlinearity="leaky_relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers = OrderedDict[str, nn.Module](conv=conv)
    if norm is not None:
        layers["norm"] = norm(outputs)
    return nn.Sequential(OrderedDict(layers, activation=nn.LeakyReLU(SLOPE)))


def _alternating(inputs: int, channels: int, *, count: int, norm: Norm) -> nn.Sequential:
    """1x1 convolutions to `channels` and 3x3 ones to twice as many in turn; `count` is odd."""
    layers = []
    for i in range(count):
        outputs, side = (channels, 1) if i % 2 == 0 else (2 * channels, 3)
        layers.append(convolution(inputs, outputs, side, norm=norm))
        inputs = outputs
    return nn.Sequential(*layers)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
