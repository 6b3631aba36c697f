"""Shared parts of our torchvision detectors: pyramid, image sizes and normalization."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from lowbit.backbones import pyramid
from lowbit.detection.detector.pyramid_levels import level_strides, select_levels

NORMS = {"none": None, "GN": partial(nn.GroupNorm, 32)}  # Detectron2's GN has 32 groups too


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
    """torchvision's resizing, normalizing and batching, with sizes for training and for inference.

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
        self.min_size = self.train_sizes if self.training else self.test_sizes
        return super().resize(image, target) if self.min_size else (image, target)
