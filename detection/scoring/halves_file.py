"""Average precision on random halves of the test images, kept so that rows of a board can be paired.

One row a half, one column a number, "split precision metric"; the file says which images were halved, and
the numbers on all of them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.parquet_pages import Bounds, check_pages

FILE = "halves.parquet"
_FACTS = b"lowbit"


class Halved(NamedTuple):
    """A job's numbers on halves of its test images.

    Attributes:
        images: how many there are.
        key: equal for the same images and annotations, which were halved alike.
        values: numbers on all images, by (split, precision, metric), in %.
        halves: the same on each half, (halves,); NaN where a half has no object for it.
    """

    images: int
    key: str
    values: dict[tuple[str, str, str], float]
    halves: dict[tuple[str, str, str], np.ndarray]


def write_halves(
    folder: str | Path,
    truth: Mapping[str, Any],
    measurements: list[dict[str, Any]],
    halves: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, str]:
    """Write the numbers on halves of the measurements that have them.

    Args:
        folder: the job's.
        truth: annotations of the test images in COCO's format.
        measurements: of the job.
        halves: by precision and metric.

    Returns:
        The artifact's path in the folder, by its name; empty where no number is known on halves.
    """
    columns, values = {}, {}
    for m in measurements:
        found = halves.get(m["precision"], {}).get(m["metric"])
        if found is not None:
            name = f"{m['split']} {m['precision']} {m['metric']}"
            columns[name], values[name] = np.asarray(found, dtype=np.float64), m["value"]
    if not columns:
        return {}
    facts = {"images": len(truth["images"]), "key": _key(truth), "values": values}
    table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    with atomic(Path(folder) / FILE) as file:
        pq.write_table(table, file)
    return {"halves": FILE}


def read_halves(path: str | Path) -> Halved:
    """Read a file of `write_halves`.

    Raises:
        OSError: there is no such file.
        ValueError: it is another file, or damaged.
    """
    check_pages(path, Bounds())
    try:
        table = pq.read_table(path, pre_buffer=False, use_threads=False)
        facts = json.loads(table.schema.metadata[_FACTS])
        named = {tuple(name.split(" ")): name for name in table.column_names}
        halves = {where: table[name].to_numpy() for where, name in named.items()}
        values = {where: float(facts["values"][name]) for where, name in named.items()}
        return Halved(int(facts["images"]), str(facts["key"]), values, halves)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no numbers on halves of images; it was not read") from error


def _key(truth: Mapping[str, Any]) -> str:
    """Hash what numbers on halves depend on but for the detections."""
    images = sorted(image["id"] for image in truth["images"])
    objects = sorted(
        (a["image_id"], a["id"], a["category_id"], *a["bbox"], a.get("iscrowd", 0))
        for a in truth["annotations"]
    )
    return hashlib.sha256(json.dumps([images, objects]).encode()).hexdigest()
