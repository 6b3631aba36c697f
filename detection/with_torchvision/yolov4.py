"""YOLOv4 around any backbone, with torchvision's batching; the detector itself is `detection/yolov4`."""

from collections import OrderedDict

from torch import Tensor, nn

from lowbit.detection.detector.pyramid_levels import level_strides, select_levels
from lowbit.detection.with_torchvision.pyramid import NORMS, BottomUp, ImageTransform
from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.path_aggregation import PathAggregation
from lowbit.detection.yolov4.prediction_head import YOLOv4Head


class AggregatedBackbone(nn.Module):
    """A bottom-up network with YOLOv4's neck.

    Args:
        network: the backbone.
        features: three stages, from fine to coarse.
        aggregation: the neck on these.
    """

    def __init__(
        self, network: nn.Module, features: tuple[str, ...], aggregation: PathAggregation
    ) -> None:
        super().__init__()
        self.bottom_up = BottomUp(network, features)
        self.aggregation = aggregation
        self.strides = level_strides(network, features, added=0)
        self.names = [f"p{stride.bit_length() - 1}" for stride in self.strides]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        levels = self.aggregation(list(self.bottom_up(x).values()))
        return OrderedDict(zip(self.names, levels, strict=True))


class YOLOv4(nn.Module):
    """Losses of images and targets in training, detections of images in inference, as torchvision's.

    Args:
        backbone: returns three levels.
        head: predicts on these.
        transform: normalizes, resizes in inference, and batches.
    """

    def __init__(self, backbone: nn.Module, head: YOLOv4Head, transform: ImageTransform) -> None:
        super().__init__()
        self.backbone, self.head, self.transform = backbone, head, transform

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None):
        before = [tuple(image.shape[-2:]) for image in images]
        batch, targets = self.transform(images, targets)
        levels = list(self.backbone(batch.tensors).values())
        if self.training:
            return self.head.losses(levels, targets)
        found = self.head.detect(levels, batch.image_sizes)
        names = ("boxes", "scores", "labels")
        outputs = [dict(zip(names, detections, strict=True)) for detections in found]
        return self.transform.postprocess(outputs, batch.image_sizes, before)


def build_yolov4(recipe, network: nn.Module, *, classes: int, normalization) -> YOLOv4:
    """Build YOLOv4 around `network`, normalizing inside the model.

    Training images come at their final size (`detection.yolov4.training_images`).

    Args:
        recipe: a detection recipe.
        network: the backbone.
        classes: number of classes.
        normalization: (mean, std), RGB, in units of 0..1.
    """
    norm, channels = NORMS[recipe.norm], recipe.fpn_channels
    stages = [level.channels for level in select_levels(network, recipe.features)]
    neck = PathAggregation(stages, channels=channels, norm=norm, relu=recipe.fpn_relu)
    backbone = AggregatedBackbone(network, recipe.features, neck)
    anchors = recipe.yolov4_settings.anchors
    head = YOLOv4Head(
        [channels, 2 * channels, 4 * channels],
        classes=classes,
        strides=backbone.strides,
        norm=norm,
        anchors=ORIGINAL if isinstance(anchors, str) else anchors,
    )
    transform = ImageTransform(recipe, normalization)
    transform.train_sizes = ()
    return YOLOv4(backbone, head, transform)
