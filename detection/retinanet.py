"""RetinaNet around any backbone, from torchvision's parts (Lin et al. 2017).

torchvision fixes the head at four convolutions a subnet and its pyramid at 256 channels and P3-P7;
the classes here take both from the recipe. Losses, anchors' matching and inference are torchvision's.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from backbones import pyramid
from detection.levels import anchor_sizes, level_strides, select_levels

NORMS = {"none": None, "GN": partial(nn.GroupNorm, 32)}  # Detectron2's GN has 32 groups too


class BottomUp(nn.Module):
    """The stages of a network that a pyramid is built on; computing stops after the last of them."""

    def __init__(self, network: nn.Module, features: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        outputs = pyramid(self.network, x, self.features)
        return OrderedDict((name, outputs[name]) for name in self.features)


class PyramidBackbone(nn.Module):
    """A bottom-up network and a feature pyramid, as torchvision's detectors want them."""

    def __init__(
        self,
        network: nn.Module,
        features: tuple[str, ...],
        *,
        channels: int,
        extra: bool,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        levels = select_levels(network, features)
        top = None
        if extra:
            top = LastLevelP6P7(levels[-1].channels, channels)
            top.use_P5 = False  # torchvision reads P5 where the channels happen to agree
        self.bottom_up = BottomUp(network, features)
        self.fpn = FeaturePyramidNetwork(
            [level.channels for level in levels], channels, top, norm_layer=norm
        )
        self.out_channels = channels
        self.strides = level_strides(network, features, extra=extra)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        return self.fpn(self.bottom_up(x))


def build_retinanet(recipe, network: nn.Module, *, classes: int, normalization) -> RetinaNet:
    """Build torchvision's RetinaNet around `network`, normalizing inside the model.

    Args:
        recipe: a detection recipe.
        network: the backbone.
        classes: number of classes; torchvision's RetinaNet counts no background.
        normalization: (mean, std), RGB, in units of 0..1.
    """
    norm = NORMS[recipe.norm]
    backbone = PyramidBackbone(
        network,
        recipe.features,
        channels=recipe.fpn_channels,
        extra=recipe.extra_levels,
        norm=norm,
    )
    anchors = AnchorGenerator(
        sizes=tuple(map(tuple, anchor_sizes(backbone.strides, recipe.anchor_scales))),
        aspect_ratios=(recipe.aspect_ratios,) * len(backbone.strides),
    )
    head = RetinaNetHead(recipe.fpn_channels, anchors.num_anchors_per_location()[0], classes)
    for subnet in (head.classification_head, head.regression_head):
        subnet.conv = nn.Sequential(*_convolutions(recipe.fpn_channels, recipe.head_convs, norm))
    mean, std = normalization
    return RetinaNet(
        backbone,
        classes,
        min_size=recipe.image_size,
        max_size=recipe.image_size,
        image_mean=list(mean),
        image_std=list(std),
        anchor_generator=anchors,
        head=head,
        detections_per_img=100,  # COCO's limit, and Detectron2's default
        _skip_resize=True,  # while training; in inference an image of this size stays as it is
    )


def _convolutions(channels: int, count: int, norm) -> list[nn.Module]:
    """3x3 convolutions with norm and ReLU, initialized as RetinaNet's (normal, 0.01)."""
    layers: list[nn.Module] = []
    for _ in range(count):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        layers += [conv, norm(channels), nn.ReLU()] if norm else [conv, nn.ReLU()]
    return layers
