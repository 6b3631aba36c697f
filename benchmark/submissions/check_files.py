"""Check that submitted predictions and detections are files as a job writes them, before reading them.

Parquet is checked by its metadata and its pages' headers, so that a small file that would become a
large table is not decompressed; columns have exactly the types of
`lowbit.transfer.scoring.predictions_file`. Detections are read a megabyte at a time.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.submissions.manifest import BundleError
from lowbit.benchmark.submissions.untrusted_text import shown
from lowbit.common.input_files.parquet_pages import check_pages
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.transfer.scoring.predictions_file import BOUNDS

MOST_DETECTIONS = 1_000_000  # COCO's 5,000 images at 100 each give 500,000
_DETECTION = {"image_id", "category_id", "bbox", "score"}
_INTEGERS = {"id": pa.int64(), "label": pa.int16()}


def check_predictions(path: Path, precisions: Collection[str]) -> None:
    """Refuse a file that is not what `write_predictions` writes at these precisions.

    Raises:
        BundleError: it is not.
    """
    try:
        check_pages(path, BOUNDS)
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"its predictions are not read: {shown(error, 200)}") from error
    wanted = {**_INTEGERS, **dict.fromkeys(precisions, pa.int16())}
    found = {field.name: field.type for field in schema}
    split = found.pop("split", None)
    words = split.value_type if isinstance(split, pa.DictionaryType) else split
    if found != wanted or words != pa.string() or len(schema) != 1 + len(wanted):
        raise BundleError(
            "its predictions have other columns than split, id, label and its precisions"
        )


def check_detections(path: Path) -> None:
    """Refuse a file that is not detections, each with an image, a class, four numbers and a score.

    Raises:
        BundleError: the file holds something else.
    """
    try:
        for place, detection in enumerate(read_detections(path)):
            if place >= MOST_DETECTIONS:
                raise BundleError(f"{path.name} has more than {MOST_DETECTIONS:,} detections")
            if not _is_detection(detection):
                raise BundleError(
                    f"{path.name} has something else than a detection at place {place}"
                )
    except BundleError:
        raise
    except ValueError as error:
        what = str(error).replace(f"{path.parent}/", "")
        raise BundleError(f"its detections are not read: {shown(what, 200)}") from error


def _is_detection(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - {"segmentation"} != _DETECTION:
        return False
    box = value["bbox"]
    return (
        type(value["image_id"]) in (int, str)
        and type(value["category_id"]) is int
        and isinstance(box, list)
        and len(box) == 4
        and all(map(_is_number, [*box, value["score"]]))
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
