"""A detection set for every engine: images, and their ground truth in COCO's format."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lowbit.detection.datasets.images_on_disk import ImageFiles

XYWH_ABS = 1  # detectron2.structures.BoxMode.XYWH_ABS, without importing Detectron2


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """The images of a split, in memory or in files, and their objects.

    Attributes:
        name, split: the source of the images.
        truth: `images`, `annotations` and `categories` in COCO's format, as given by the source;
            an image's position is its index in `images`.
        images: uint8 (3, H, W) by position, RGB: one tensor (N, 3, H, W), or files.
        split_sha256: hash of the annotations and of the choice of images.
        where: maps ("images" | "annotations" | "categories", id) to file and line.
        style: whose evaluation is customary for it; "voc" marks difficult objects.
        voc_base: what corners were said to count from, 0 or 1; None: not said, and 1 was assumed.
    """

    name: str
    split: str
    truth: dict[str, list[dict[str, Any]]]
    images: Tensor | ImageFiles
    split_sha256: str
    where: Callable[[str, Any], str]
    style: Literal["coco", "voc"] = "coco"
    voc_base: int | None = None

    def __len__(self) -> int:
        return len(self.truth["images"])

    @cached_property
    def _categories(self) -> list[dict[str, Any]]:
        return sorted(self.truth["categories"], key=lambda category: category["id"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is an index into them."""
        return tuple(category["name"] for category in self._categories)

    @cached_property
    def category_ids(self) -> tuple[int, ...]:
        """The category ids, by label; COCO's have gaps."""
        return tuple(category["id"] for category in self._categories)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The image ids, by position."""
        return tuple(image["id"] for image in self.truth["images"])

    @cached_property
    def _ids_by_name(self) -> dict[str, int]:
        return {Path(image["file_name"]).stem: image["id"] for image in self.truth["images"]}

    def image_id(self, image: int | str) -> int | str:
        """Return the id of an image given by its id or, as Detectron2 does for VOC, by its name."""
        return self._ids_by_name.get(image, image)

    @cached_property
    def objects(self) -> list[list[dict[str, Any]]]:
        """The annotations of each image, including crowds."""
        found = defaultdict(list)
        for annotation in self.truth["annotations"]:
            found[annotation["image_id"]].append(annotation)
        return [found[image_id] for image_id in self.ids]

    @cached_property
    def _targets(self) -> list[tuple[Tensor, Tensor]]:
        labels = {category_id: label for label, category_id in enumerate(self.category_ids)}
        targets = []
        for image, objects in zip(self.truth["images"], self.objects, strict=True):
            kept = [a for a in objects if not a.get("iscrowd", 0)]
            boxes = torch.tensor([a["bbox"] for a in kept], dtype=torch.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            boxes[:, 0::2].clamp_(0, image["width"])
            boxes[:, 1::2].clamp_(0, image["height"])
            solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
            classes = torch.tensor([labels[a["category_id"]] for a in kept], dtype=torch.int64)
            targets.append((boxes[solid].float(), classes[solid]))
        return targets

    @cached_property
    def boxes(self) -> tuple[Tensor, ...]:
        """Training boxes: float32 (n, 4) by position, x1 y1 x2 y2 in pixels; x2 and y2 are exclusive.

        Crowds and boxes without area are left out, and boxes are clipped to their image.
        """
        return tuple(boxes for boxes, _ in self._targets)

    @cached_property
    def labels(self) -> tuple[Tensor, ...]:
        """The classes of `boxes`: int64 (n,) by position, from 0."""
        return tuple(labels for _, labels in self._targets)

    @cached_property
    def annotated(self) -> tuple[int, ...]:
        """The positions of images with at least one training box."""
        return tuple(place for place, boxes in enumerate(self.boxes) if len(boxes))

    def image(self, index: int) -> Tensor:
        """Return the image at a position: uint8 (3, H, W), RGB."""
        return self.images[index]

    def to_coco(self) -> dict[str, Any]:
        """Return the ground truth in COCO's format with everything that pycocotools needs.

        Annotations are numbered and completed, see `completed`.
        """
        return {
            "info": {"description": f"{self.name} {self.split}"},
            "images": [dict(image) for image in self.truth["images"]],
            "annotations": completed(self.truth["annotations"]),
            "categories": [dict(category) for category in self._categories],
        }

    def records(self) -> list[dict[str, Any]]:
        """Return Detectron2's dataset dicts; images in memory are given as pixels instead of a file."""
        labels = {category_id: label for label, category_id in enumerate(self.category_ids)}
        return [
            {
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                **self._pixels(index),
                "annotations": [
                    {
                        "bbox": list(annotation["bbox"]),
                        "bbox_mode": XYWH_ABS,
                        "category_id": labels[annotation["category_id"]],
                        "iscrowd": annotation.get("iscrowd", 0),
                    }
                    for annotation in self.objects[index]
                ],
            }
            for index, image in enumerate(self.truth["images"])
        ]

    def _pixels(self, index: int) -> dict[str, Any]:
        if isinstance(self.images, ImageFiles):
            return {"file_name": self.images.paths[index]}
        # An array: Detectron2 pickles the records, and a tensor's view pickles its whole set.
        return {"pixels": self.images[index].numpy()}


def completed(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return annotations with all that pycocotools needs.

    A missing area is the box's and a missing iscrowd is 0. Ids count from 1, whatever they were:
    pycocotools takes 0 for "unmatched" and fails on text.
    """
    return [
        {
            "area": annotation["bbox"][2] * annotation["bbox"][3],
            "iscrowd": 0,
            **{key: value for key, value in annotation.items() if value is not None},
            "id": number,
        }
        for number, annotation in enumerate(annotations, 1)
    ]
