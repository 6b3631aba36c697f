"""Map Detectron2's dataset dicts to YOLOv4's training images. Needs Detectron2."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, BoxMode, Instances

from lowbit.data.decoding import decode
from lowbit.detection.yolov4.anchors import box_shapes, kmeans_anchors
from lowbit.detection.yolov4.mosaic import Sample
from lowbit.detection.yolov4.training_images import TrainingImages


class RecordMapper:
    """Map a training record to an image of `TrainingImages` and its `Instances`.

    Args:
        cfg: the configuration.
        records: all training records, among which a mosaic finds its others.
    """

    def __init__(self, cfg, records: Sequence[dict[str, Any]]) -> None:
        self.records = records
        self.places = {_name(record): place for place, record in enumerate(records)}
        sizes = tuple(size for size in cfg.INPUT.MIN_SIZE_TRAIN if size)
        self.prepare = TrainingImages(
            sizes=sizes,
            longest=cfg.INPUT.MAX_SIZE_TRAIN,
            flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
            mosaic=cfg.INPUT.MOSAIC,
            color_jitter=cfg.INPUT.COLOR_JITTER,
        )

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        place = self.places[_name(record)]
        sample = self.prepare(lambda i: _loaded(self.records[i]), place, len(self.records))
        size = tuple(sample.pixels.shape[1:])
        instances = Instances(size, gt_boxes=Boxes(sample.boxes), gt_classes=sample.labels)
        return {
            "image": sample.pixels,
            "image_id": record["image_id"],
            "height": size[0],
            "width": size[1],
            "instances": instances,
        }


def clustered_anchors(cfg, records: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Return the anchors for a training set, (9, 2), by k-means of its boxes at test-time size."""
    known = ((record["height"], record["width"], _targets(record)[0]) for record in records)
    shorter, longest = cfg.INPUT.MIN_SIZE_TEST or None, cfg.INPUT.MAX_SIZE_TEST
    return kmeans_anchors(box_shapes(known, shorter=shorter, longest=longest))


def _name(record: dict[str, Any]) -> str | int:
    """Return what no other record of several sets has; images in memory have no file."""
    return record.get("file_name", record["image_id"])


def _loaded(record: dict[str, Any]) -> Sample:
    if "pixels" in record:
        pixels = torch.from_numpy(record["pixels"])
    else:
        pixels = decode(record["file_name"], upright=True)
    return Sample(pixels, *_targets(record))


def _targets(record: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes and labels as `DetectionSet` has them: clipped, without crowds and empty boxes."""
    kept = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    corners = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept]
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    boxes[:, 0::2].clamp_(0, record["width"])
    boxes[:, 1::2].clamp_(0, record["height"])
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    labels = torch.tensor([a["category_id"] for a in kept], dtype=torch.int64)
    return boxes[solid].float(), labels[solid]
