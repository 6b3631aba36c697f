"""Digit scenes in Detectron2's catalogs, read from memory. Needs Detectron2."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from detection.datasets import DetectionSet, digit_scenes
from detection.evaluation import evaluate, to_detections

_DEFAULT_COUNTS = {"train": 1200, "val": 300, "test": 300}


def register(name: str, draw: Callable[[], DetectionSet]) -> None:
    """Register a set under `name`, in place of what had the name; it is drawn when first asked for."""
    draw = cache(draw)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: to_dicts(draw()))
    MetadataCatalog.get(name).set(evaluator_type="scenes", scenes=draw)


def register_default_scenes() -> None:
    """Register digit_scenes_train, _val and _test, for configuration files to name."""
    for split, count in _DEFAULT_COUNTS.items():
        register(f"digit_scenes_{split}", partial(digit_scenes, split, count))


def to_dicts(images: DetectionSet) -> list[dict[str, Any]]:
    """Return a set as Detectron2's dataset dicts, with the pixels in lieu of a file."""
    truth = images.to_coco()
    dicts = [
        {
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            # An array: Detectron2 pickles the records, and a tensor's view pickles its whole set.
            "pixels": images.images[index].numpy(),
            "annotations": [],
        }
        for index, image in enumerate(truth["images"])
    ]
    for annotation in truth["annotations"]:
        dicts[annotation["image_id"] - 1]["annotations"].append(
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": annotation["category_id"] - 1,
                "iscrowd": 0,
            }
        )
    return dicts


class Mapper:
    """Map dataset dicts to a detector's input: scenes as they are, files by Detectron2's mapper."""

    def __init__(self, cfg, *, is_train: bool) -> None:
        self.is_train = is_train
        self.files = cache(lambda: DatasetMapper(cfg, is_train))  # it announces itself in the log

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if "pixels" not in record:
            return self.files()(record)
        size = (record["height"], record["width"])
        sample = {
            "image": torch.from_numpy(record["pixels"]),
            "image_id": record["image_id"],
            "height": size[0],
            "width": size[1],
        }
        if self.is_train:
            boxes = [
                {**a, "bbox": BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)}
                | {"bbox_mode": BoxMode.XYXY_ABS}
                for a in record["annotations"]
            ]
            sample["instances"] = annotations_to_instances(boxes, size)
        return sample


class SceneEvaluator(DatasetEvaluator):
    """Score detections in scenes by `detection.evaluation`, as the recipes do."""

    def __init__(self, images: DetectionSet) -> None:
        self.truth = images.to_coco()
        self.reset()

    def reset(self) -> None:
        self.detections: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            self.detections += instances_to_detections(sample["image_id"], output["instances"])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        gathered = comm.gather(self.detections)
        if not comm.is_main_process():
            return None
        return {"bbox": evaluate(self.truth, [d for part in gathered for d in part])}


def instances_to_detections(image_id: int, instances) -> list[dict[str, Any]]:
    """Return one image's `Instances` in COCO's result format."""
    boxes = instances.pred_boxes.tensor
    return to_detections(image_id, boxes, instances.scores, instances.pred_classes)
