"""Faster R-CNN around any backbone, from torchvision's parts (Ren et al. 2015; Lin et al. 2017).

Anchors, widths and counts come from the recipe, as in Detectron2's FPN detector; matching,
sampling, losses and inference are torchvision's.
"""

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lowbit.detection.detector.pyramid_levels import anchor_sizes
from lowbit.detection.with_torchvision.pyramid import NORMS, ImageTransform, PyramidBackbone

POOLED = 7  # side of a region's features


class LabelledFromZero(FasterRCNN):
    """torchvision's Faster R-CNN with labels from 0, as in RetinaNet; its own 0 is the background."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None):
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        outputs = super().forward(images, targets)
        if self.training:
            return outputs
        return [{**output, "labels": output["labels"] - 1} for output in outputs]


def build_faster_rcnn(recipe, network: nn.Module, *, classes: int, normalization) -> FasterRCNN:
    """Build torchvision's Faster R-CNN around `network`, normalizing inside the model.

    Args:
        recipe: a detection recipe.
        network: the backbone.
        classes: number of classes, without the background.
        normalization: (mean, std), RGB, in units of 0..1.
    """
    backbone = PyramidBackbone(
        network,
        recipe.features,
        channels=recipe.fpn_channels,
        added=LastLevelMaxPool(),
        norm=NORMS[recipe.norm],
        relu=recipe.fpn_relu,
    )
    anchors = AnchorGenerator(
        sizes=tuple(map(tuple, anchor_sizes(backbone.strides, recipe.anchor_scales))),
        aspect_ratios=(recipe.aspect_ratios,) * len(backbone.strides),
    )
    detector = LabelledFromZero(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(recipe.fpn_channels, anchors.num_anchors_per_location()[0]),
        rpn_post_nms_top_n_train=1000,  # Detectron2's for FPN
        box_roi_pool=MultiScaleRoIAlign(list(recipe.features), POOLED, sampling_ratio=0),
        box_head=TwoMLPHead(recipe.fpn_channels * POOLED**2, recipe.box_head_channels),
        box_predictor=FastRCNNPredictor(recipe.box_head_channels, classes + 1),
        box_batch_size_per_image=recipe.regions_per_image,
    )
    detector.transform = ImageTransform(recipe, normalization)
    return detector
