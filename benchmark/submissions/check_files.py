"""Check that submitted predictions and detections are files as a job writes them, before reading them.

Parquet is checked by its metadata, so that a small file that would become a large table is not
decompressed; columns have exactly the types of `lowbit.transfer.scoring.predictions_file`.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.submissions.manifest import BundleError
from lowbit.benchmark.submissions.untrusted_text import parse_json, shown

_MOST_ROWS = 2_000_000  # images of all splits; ImageNet tests on 50,000
_MOST_BYTES = 1 << 30  # of the table in memory, by its metadata
_MOST_DETECTIONS = 5_000_000  # COCO's 5,000 images at 100 each give 500,000
_DETECTION = {"image_id", "category_id", "bbox", "score"}
_INTEGERS = {"id": pa.int64(), "label": pa.int16()}


def check_predictions(path: Path, precisions: Collection[str]) -> None:
    """Refuse a file that is not what `write_predictions` writes at these precisions.

    Raises:
        BundleError: it is not.
    """
    try:
        with pq.ParquetFile(path) as file:
            facts, schema = file.metadata, file.schema_arrow
            groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"its predictions are no Parquet file: {shown(error)}") from error
    if not 0 < facts.num_rows <= _MOST_ROWS or sum(g.total_byte_size for g in groups) > _MOST_BYTES:
        raise BundleError(
            f"its predictions have {facts.num_rows:,} rows, where {_MOST_ROWS:,} are allowed, and "
            f"{_MOST_BYTES >> 20:,} MiB"
        )
    wanted = {**_INTEGERS, **dict.fromkeys(precisions, pa.int16())}
    found = {field.name: field.type for field in schema}
    split = found.pop("split", None)
    words = split.value_type if pa.types.is_dictionary(split) else split
    if found != wanted or not pa.types.is_string(words) or len(schema) != 1 + len(wanted):
        raise BundleError(
            "its predictions have other columns than split, id, label and its precisions"
        )


def check_detections(path: Path) -> None:
    """Refuse a file that is not detections, each with an image, a class, four numbers and a score.

    Raises:
        BundleError: the file holds something else.
    """
    try:
        found = parse_json(path.read_bytes(), path.name)
    except ValueError as error:
        raise BundleError(f"its detections are no JSON: {shown(error)}") from error
    if not isinstance(found, list) or len(found) > _MOST_DETECTIONS:
        raise BundleError(f"{path.name} is no list of at most {_MOST_DETECTIONS:,} detections")
    for place, detection in enumerate(found):
        if not _is_detection(detection):
            raise BundleError(f"{path.name} has something else than a detection at place {place}")


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
