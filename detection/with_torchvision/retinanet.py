"""RetinaNet around any backbone, from torchvision's parts (Lin et al. 2017).

torchvision fixes the head at four convolutions per subnet and its pyramid at 256 channels and P3-P7;
here both come from the recipe. Losses, anchor matching and inference are torchvision's.
"""

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from lowbit.detection.detector.pyramid_levels import anchor_sizes, select_levels
from lowbit.detection.with_torchvision.pyramid import NORMS, ImageTransform, PyramidBackbone


def build_retinanet(recipe, network: nn.Module, *, classes: int, normalization) -> RetinaNet:
    """Build torchvision's RetinaNet around `network`, normalizing inside the model.

    Args:
        recipe: a detection recipe.
        network: the backbone.
        classes: number of classes; torchvision's RetinaNet counts no background.
        normalization: (mean, std), RGB, in units of 0..1.
    """
    norm = NORMS[recipe.norm]
    added = None
    if recipe.extra_levels:
        last = select_levels(network, recipe.features)[-1]
        added = LastLevelP6P7(last.channels, recipe.fpn_channels)
        added.use_P5 = False  # torchvision uses P5 if the channels happen to agree
    backbone = PyramidBackbone(
        network,
        recipe.features,
        channels=recipe.fpn_channels,
        added=added,
        norm=norm,
        relu=recipe.fpn_relu,
    )
    anchors = AnchorGenerator(
        sizes=tuple(map(tuple, anchor_sizes(backbone.strides, recipe.anchor_scales))),
        aspect_ratios=(recipe.aspect_ratios,) * len(backbone.strides),
    )
    head = RetinaNetHead(recipe.fpn_channels, anchors.num_anchors_per_location()[0], classes)
    for subnet in (head.classification_head, head.regression_head):
        subnet.conv = nn.Sequential(*_convolutions(recipe.fpn_channels, recipe.head_convs, norm))
    detector = RetinaNet(
        backbone,
        classes,
        anchor_generator=anchors,
        head=head,
        detections_per_img=100,  # COCO's limit, and Detectron2's default
    )
    detector.transform = ImageTransform(recipe, normalization)
    return detector


def _convolutions(channels: int, count: int, norm) -> list[nn.Module]:
    """3x3 convolutions with norm and ReLU, initialized as in RetinaNet (normal, 0.01)."""
    layers: list[nn.Module] = []
    for _ in range(count):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        layers += [conv, norm(channels), nn.ReLU()] if norm else [conv, nn.ReLU()]
    return layers
