"""Detections in COCO's result format: from a detector's output, to a file and back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.common.atomic_file import atomic
from lowbit.detection.datasets.detection_set import DetectionSet

DETECTIONS = "detections.json"
IMAGE_NAMES = "image_names.json"


def to_detections(
    image_id: int, boxes, scores, labels, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return one image's detections in COCO's format.

    Args:
        image_id: the image's id.
        boxes: (n, 4) tensor, x1 y1 x2 y2 in pixels.
        scores: (n,) tensor.
        labels: (n,) tensor, from 0.
        category_ids: category ids by label; None: they count from 1.
    """
    corners = boxes.detach().cpu().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": label + 1 if category_ids is None else category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            corners, scores.detach().cpu().tolist(), labels.cpu().tolist(), strict=True
        )
    ]


def write_detections(
    folder: str | Path, detections: Sequence[dict[str, Any]], *, name: str = DETECTIONS
) -> str:
    """Write COCO's result file atomically, with all digits; return its name."""
    with atomic(Path(folder) / name) as file:
        file.write(json.dumps(list(detections)).encode())
    return name


def write_image_names(folder: str | Path, images: DetectionSet) -> dict[str, str]:
    """Write the file name of every image by its id, for VOC's sets, whose annotations have no ids.

    Returns:
        The artifact's path in the folder, by its name; empty for other sets, whose ids are their own.
    """
    if images.style != "voc":
        return {}
    names = {image["id"]: image["file_name"] for image in images.truth["images"]}
    with atomic(Path(folder) / IMAGE_NAMES) as file:
        file.write(json.dumps(names, indent=0).encode())
    return {"image_names": IMAGE_NAMES}


def read_detections(path: str | Path) -> list[dict[str, Any]]:
    """Read COCO's result file."""
    return json.loads(Path(path).read_bytes())
