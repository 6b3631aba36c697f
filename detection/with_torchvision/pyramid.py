"""Shared parts of our torchvision detectors: pyramid, image sizes and normalization.

Images are resized as by Detectron2, which rounds sides (torchvision cuts them off) and averages over
the pixels that a smaller image merges (torchvision interpolates between two).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from lowbit.backbones import pyramid
from lowbit.detection.detector.pyramid_levels import level_strides, select_levels

# Detectron2's GN has 32 groups too.
NORMS = {"none": None, "GN": partial(nn.GroupNorm, 32), "BN": nn.BatchNorm2d}


class BottomUp(nn.Module):
    """The stages of a network that a pyramid is built on; later stages are not computed."""

    def __init__(self, network: nn.Module, features: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        outputs = pyramid(self.network, x, self.features)
        return OrderedDict((name, outputs[name]) for name in self.features)


class PyramidBackbone(nn.Module):
    """A bottom-up network with a feature pyramid, as a backbone for torchvision's detectors.

    Args:
        network: the backbone.
        features: stages that the pyramid is built on.
        channels: channels of the pyramid.
        added: module that computes levels above those of the stages.
        norm: norm of the pyramid's convolutions.
        relu: put a ReLU on every level, so that the heads' inputs are non-negative.
    """

    def __init__(
        self,
        network: nn.Module,
        features: tuple[str, ...],
        *,
        channels: int,
        added: ExtraFPNBlock | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__()
        levels = select_levels(network, features)
        self.bottom_up = BottomUp(network, features)
        self.fpn = FeaturePyramidNetwork(
            [level.channels for level in levels], channels, added, norm_layer=norm
        )
        self.out_channels = channels
        self.relu = relu
        count = {type(None): 0, LastLevelMaxPool: 1, LastLevelP6P7: 2}[type(added)]
        self.strides = level_strides(network, features, added=count)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        outputs = self.fpn(self.bottom_up(x))
        if not self.relu:
            return outputs
        return OrderedDict((name, F.relu(output)) for name, output in outputs.items())


class ImageTransform(GeneralizedRCNNTransform):
    """torchvision's normalizing and batching, with Detectron2's resizing, for training and inference.

    Args:
        recipe: gives `train_sizes`, of which one is drawn for each image, `test_size` and `max_size`;
            without a size, images are not resized.
        normalization: (mean, std), RGB, in units of 0..1.
    """

    def __init__(self, recipe, normalization) -> None:
        mean, std = map(list, normalization)
        super().__init__(0, recipe.max_size, mean, std)
        self.train_sizes = recipe.train_sizes
        self.test_sizes = () if recipe.test_size is None else (recipe.test_size,)

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None):
        sizes = self.train_sizes if self.training else self.test_sizes
        if not sizes:
            return image, target
        shorter = self.torch_choice(sizes) if self.training else sizes[0]
        before = image.shape[-2:]
        after = resized(*before, shorter=shorter, longest=self.max_size)
        image = F.interpolate(image[None], after, mode="bilinear", antialias=True)[0]
        if target is not None:
            target = {**target, "boxes": resize_boxes(target["boxes"], before, after)}
        return image, target


def resized(height: int, width: int, *, shorter: int, longest: int) -> tuple[int, int]:
    """Return (height, width) with a given shorter side, or less if the longer would exceed `longest`.

    Example:
        >>> resized(375, 500, shorter=800, longest=1333), resized(333, 500, shorter=800, longest=1000)
        ((800, 1067), (666, 1000))
    """
    scale = shorter / min(height, width)
    sides = [shorter if side == min(height, width) else scale * side for side in (height, width)]
    if max(sides) > longest:
        sides = [side * (longest / max(sides)) for side in sides]
    return tuple(int(side + 0.5) for side in sides)


def mirrored(pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image (3, H, W) and its boxes (n, 4), mirrored horizontally.

    Example:
        >>> pixels, boxes = mirrored(torch.zeros(3, 8, 10), torch.tensor([[1.0, 2, 4, 6]]))
        >>> boxes.tolist()
        [[6.0, 2.0, 9.0, 6.0]]
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    width = pixels.shape[-1]
    return pixels.flip(-1), torch.stack([width - x2, y1, width - x1, y2], 1)
