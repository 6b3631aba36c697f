"""Digit scenes as a detection set; each split uses only the digits of that split of `digits`."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from lowbit import data
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.digit_scenes import Layout, Scene, draw_scene

SCENES_VERSION = 1  # raised when the same seed gives different scenes

_STREAMS = {"train": 0, "val": 1, "test": 2}
_DEFAULT_COUNTS = {"train": 1200, "val": 300, "test": 300}


class DigitScenes:
    """The digit scenes of a layout and a seed; the contract is `lowbit.detection.datasets.catalog.Source`.

    Args:
        layout: layout of the scenes.
        seed: seed of the scenes; each split has its own stream.
        root: folder of downloaded image sets; the digits need none.

    Example:
        >>> scenes = DigitScenes(Layout()).load("train", 3)
        >>> scenes.images.shape, len(scenes.boxes)
        (torch.Size([3, 3, 128, 128]), 3)
    """

    def __init__(self, layout: Layout, *, seed: int = 0, root=None) -> None:
        self.layout, self.seed, self.root = layout, seed, root

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""
        return tuple(_STREAMS)

    def load(self, split: str, count: int | None = None) -> DetectionSet:
        """Draw the first `count` scenes of a split, with digits of the same split."""
        if split not in _STREAMS:
            raise ValueError(
                f"digit-scenes has no split {split!r}; nothing was drawn. Use train, val or test."
            )
        count = count or _DEFAULT_COUNTS[split]
        source = data.load("digits", split, root=self.root)
        coverage = source.images[:, 0].numpy().astype(np.float32) / 255  # (N, 32, 32)
        labels = source.labels.numpy()
        seed = (self.seed, _STREAMS[split])
        scenes = [
            draw_scene(coverage, labels, layout=self.layout, seed=seed, index=index)
            for index in range(count)
        ]
        return DetectionSet(
            name="digit-scenes",
            split=split,
            truth=_truth(scenes, source.classes, self.layout.size),
            images=torch.from_numpy(np.stack([scene.image for scene in scenes])),
            split_sha256=self._sha256(**{split: count}),
            where=lambda section, entry_id: f"{section} of the scenes, id {entry_id}",
        )

    def sha256(self, *, train: int | None, test: int | None, test_split: str) -> str:
        """Hash the definition of the training and test scenes, without drawing any."""
        return self._sha256(
            train=train or _DEFAULT_COUNTS["train"], test=test or _DEFAULT_COUNTS[test_split]
        )

    def _sha256(self, **counts: int) -> str:
        definition = {
            "digits": data.image_set("digits").split_sha256,
            "layout": asdict(self.layout),
            "seed": self.seed,
            **counts,
            "version": SCENES_VERSION,
        }
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def _truth(scenes: list[Scene], classes: tuple[str, ...], size: int) -> dict[str, Any]:
    """Return the scenes' objects in COCO's format: ids count from 1, areas are boxes' areas."""
    annotations = []
    for image_id, scene in enumerate(scenes, 1):
        for (x1, y1, x2, y2), label in zip(
            scene.boxes.tolist(), scene.labels.tolist(), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": number, "file_name": f"{number:06d}.png", "height": size, "width": size}
            for number in range(1, len(scenes) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
    }
