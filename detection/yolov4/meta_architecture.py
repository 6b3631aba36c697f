"""YOLOv4 as a Detectron2 meta-architecture, MODEL.META_ARCHITECTURE YOLOv4. Needs Detectron2.

Its keys are those of `lowbit.detection.with_detectron2.config`; the neck is part of the backbone
`build_lowbit_yolov4_backbone`.
"""

from functools import partial

import torch
from detectron2.layers import get_norm
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.prediction_head import YOLOv4Head


@META_ARCH_REGISTRY.register()
class YOLOv4(nn.Module):
    """Losses of Detectron2's training records, `Instances` of its inference records."""

    def __init__(self, cfg) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        shapes = self.backbone.output_shape()
        norm = cfg.MODEL.FPN.NORM
        self.names = list(shapes)
        self.head = YOLOv4Head(
            [shape.channels for shape in shapes.values()],
            classes=cfg.MODEL.YOLOV4.NUM_CLASSES,
            strides=[shape.stride for shape in shapes.values()],
            norm=partial(get_norm, norm) if norm else None,
            anchors=cfg.MODEL.YOLOV4.ANCHORS or ORIGINAL,
        )
        self.head.selection.count = cfg.TEST.DETECTIONS_PER_IMAGE
        for name in ("mean", "std"):
            values = torch.tensor(getattr(cfg.MODEL, f"PIXEL_{name.upper()}")).view(-1, 1, 1)
            self.register_buffer(f"pixel_{name}", values, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the images go."""
        return self.pixel_mean.device

    def preprocess_image(self, records: list[dict]) -> ImageList:
        """Normalize images and pad them to one size."""
        images = [
            (record["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            for record in records
        ]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)

    def forward(self, records: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Return losses in training, and in inference for each record {"instances": ...}."""
        images = self.preprocess_image(records)
        features = self.backbone(images.tensor)
        levels = [features[name] for name in self.names]
        if self.training:
            return self.head.losses(levels, [self._target(record) for record in records])
        outputs = []
        found = self.head.detect(levels, images.image_sizes)
        for record, size, (boxes, scores, labels) in zip(
            records, images.image_sizes, found, strict=True
        ):
            instances = Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=labels)
            height, width = record.get("height", size[0]), record.get("width", size[1])
            outputs.append({"instances": detector_postprocess(instances, height, width)})
        return outputs

    def _target(self, record: dict) -> dict[str, Tensor]:
        truth = record["instances"].to(self.device)
        return {"boxes": truth.gt_boxes.tensor, "labels": truth.gt_classes}
