"""Detections in COCO's result format: from a detector's output, written whole, read a piece at a time."""

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.json_values import parse_json
from lowbit.common.input_files.regular_file import check_regular
from lowbit.common.text import size
from lowbit.detection.datasets.detection_set import DetectionSet

DETECTIONS = "detections.json"
IMAGE_NAMES = "image_names.json"
_BLOCK = 1 << 20  # bytes read at a time
_LONGEST = 2 * _BLOCK  # of a detection; a mask has some thousand
_MOST_VALUES = 1_000_000  # in a piece of that length
_BETWEEN = re.compile(rb"\}[ \t\r\n]*+,[ \t\r\n]*+(?=\{)")


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


def read_detections(path: str | Path) -> Iterator[Any]:
    """Yield the entries of COCO's result file; memory is needed for a megabyte of it at a time.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON list of mappings, as far as it was read.
    """
    check_regular(path)
    what = f"{path}, a list of detections,"
    with Path(path).open("rb") as file:
        rest = file.read(_BLOCK).lstrip()
        if not rest.startswith(b"["):
            raise ValueError(f"{what} cannot be read: it does not begin as a list")
        rest = rest[1:]
        while block := file.read(_BLOCK):
            rest += block
            if cut := next(iter(deque(_BETWEEN.finditer(rest), maxlen=1)), None):  # the last
                # Cut inside a text or a list, neither piece is JSON.
                yield from _entries(b"[" + rest[: cut.start() + 1] + b"]", what)
                rest = rest[cut.end() :]
            elif len(rest) > _LONGEST:
                raise ValueError(f"{what} cannot be read: an entry is longer than {size(_LONGEST)}")
        yield from _entries(b"[" + rest, what)


def _entries(piece: bytes, what: str) -> list[Any]:
    found = parse_json(piece, what, limit=2 * _LONGEST, values=_MOST_VALUES)
    if not isinstance(found, list):
        raise ValueError(f"{what} is none")
    return found
