"""Detection sets in memory, and their COCO annotations.

`digit-scenes` needs no download: scikit-learn's digits on textured canvases, where a scene of a
split holds only digits of that split of the pinned `digits` set.
"""

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.registry import Registry
from PIL import Image
from torch import Tensor

import data
from detection.scenes import Layout, draw_scene

SCENES_VERSION = 1  # bumped when the same seed draws other scenes

DETECTION_SETS = Registry("DETECTION_SETS")
DETECTION_SETS.__doc__ = """
Registry of detection sets. Register a function (split, count, *, layout, seed, root) that returns a
`DetectionSet`; its name with `-` for `_` is the data set's name in recipes.
"""

_STREAMS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class DetectionSet:
    """Hold images of one size and their objects.

    Attributes:
        images: uint8 (N, 3, H, W), RGB.
        boxes: N tensors float32 (n, 4), x1 y1 x2 y2 in pixels; x2 and y2 lie just outside.
        labels: N tensors int64 (n,), from 0.
        classes: the classes' names.
        name, split: where the images come from.
    """

    images: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    classes: tuple[str, ...]
    name: str
    split: str

    def __len__(self) -> int:
        return len(self.images)

    def to_coco(self) -> dict[str, Any]:
        """Return the annotations in COCO's format: all ids count from 1, areas are boxes' areas."""
        height, width = self.images.shape[-2:]
        annotations = []
        for image_id, (boxes, labels) in enumerate(zip(self.boxes, self.labels, strict=True), 1):
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes id 0 for "unmatched"
                        "image_id": image_id,
                        "category_id": label + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        return {
            "info": {"description": f"{self.name} {self.split}"},
            "images": [
                {"id": i + 1, "file_name": f"{i + 1:06d}.png", "height": height, "width": width}
                for i in range(len(self))
            ],
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": n} for i, n in enumerate(self.classes)],
        }


def list_detection_sets() -> list[str]:
    """Name every registered detection set, sorted."""
    return sorted(name.replace("_", "-") for name, _ in DETECTION_SETS)


def load_detection(name: str, split: str, count: int, **options) -> DetectionSet:
    """Load `count` images of a registered detection set's split.

    Raises:
        ValueError: there is no such set.
    """
    if name not in list_detection_sets():
        near = difflib.get_close_matches(name, list_detection_sets(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"there is no detection set named {name!r}; nothing was loaded. "
            f"{hint}Known sets: {', '.join(list_detection_sets())}."
        )
    return DETECTION_SETS.get(name.replace("-", "_"))(split, count, **options)


@DETECTION_SETS.register()
def digit_scenes(
    split: str, count: int, *, layout: Layout | None = None, seed: int = 0, root=None
) -> DetectionSet:
    """Draw the first `count` digit scenes of a split.

    Args:
        split: "train", "val" or "test": of the scenes, and of the digits in them.
        count: number of scenes.
        layout: what a scene looks like.
        seed: names the stream of scenes; splits have streams of their own.
        root: where downloaded image sets are; the digits need none.

    Example:
        >>> scenes = digit_scenes("train", 3)
        >>> scenes.images.shape, len(scenes.boxes)
        (torch.Size([3, 3, 128, 128]), 3)
    """
    layout = layout or Layout()
    if split not in _STREAMS:
        raise ValueError(
            f"digit-scenes has no split {split!r}; nothing was drawn. Use train, val or test."
        )
    source = data.load("digits", split, root=root)
    coverage = source.images[:, 0].numpy().astype(np.float32) / 255  # (N, 32, 32)
    labels = source.labels.numpy()
    scenes = [
        draw_scene(coverage, labels, layout=layout, seed=(seed, _STREAMS[split]), index=index)
        for index in range(count)
    ]
    return DetectionSet(
        images=torch.from_numpy(np.stack([scene.image for scene in scenes])),
        boxes=tuple(torch.from_numpy(scene.boxes) for scene in scenes),
        labels=tuple(torch.from_numpy(scene.labels) for scene in scenes),
        classes=source.classes,
        name="digit-scenes",
        split=split,
    )


def scenes_sha256(layout: Layout, *, seed: int, train: int, test: int) -> str:
    """Hash what defines the scenes trained and tested on, without drawing one."""
    definition = {
        "digits": data.image_set("digits").split_sha256,
        "layout": asdict(layout),
        "seed": seed,
        "train": train,
        "test": test,
        "version": SCENES_VERSION,
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def export_coco(images: DetectionSet, folder: str | Path) -> Path:
    """Write a set as COCO lays it out: `<split>/*.png` and `annotations/instances_<split>.json`.

    Returns the annotation file.
    """
    folder = Path(folder)
    truth = images.to_coco()
    pictures = folder / images.split
    pictures.mkdir(parents=True, exist_ok=True)
    for image, entry in zip(images.images, truth["images"], strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(pictures / entry["file_name"])
    path = folder / "annotations" / f"instances_{images.split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(truth))
    return path
