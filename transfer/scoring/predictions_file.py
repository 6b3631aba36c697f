"""Parquet file with the prediction for every scored image, for recomputing scores.

Columns: `split`, the image's `id` in its data set, its `label`, and one column per precision with the
predicted class. The file's metadata, under `lowbit-bench`, is JSON: the data set, the hash of its
splits and the names of the classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lowbit.common.atomic_file import atomic

FILE = "predictions.parquet"
_FACTS = b"lowbit-bench"
_LEADING = ("split", "id", "label")
_METADATA = {"dataset", "split_sha256", "classes"}


@dataclass(frozen=True)
class Predictions:
    """The predictions of one split: ids and labels (N,), and classes (N,) by precision."""

    split: str
    ids: Tensor
    labels: Tensor
    classes: Mapping[str, Tensor]


def write_predictions(
    path: Path,
    splits: Sequence[Predictions],
    *,
    dataset: str,
    split_sha256: str,
    class_names: Sequence[str],
) -> None:
    """Write the predictions of one job; the write is atomic, and equal predictions give equal bytes."""
    facts = {"dataset": dataset, "split_sha256": split_sha256, "classes": list(class_names)}
    tables = [
        pa.table(
            {
                "split": pa.array([part.split] * len(part.ids)).dictionary_encode(),
                "id": part.ids.numpy(),
                "label": part.labels.to(torch.int16).numpy(),
                **{name: found.to(torch.int16).numpy() for name, found in part.classes.items()},
            }
        )
        for part in splits
    ]
    table = pa.concat_tables(tables).replace_schema_metadata({_FACTS: json.dumps(facts)})
    with atomic(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_predictions(path: Path) -> tuple[list[Predictions], dict]:
    """Return the predictions in a file, split by split, and the facts in its metadata.

    Raises:
        ValueError: the file is not Parquet, or was not written by `write_predictions`.
    """
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path} is not a Parquet file ({error}); nothing was scored. Copy it again from the job."
        ) from error
    facts = (table.schema.metadata or {}).get(_FACTS)
    absent = [name for name in _LEADING if name not in table.column_names]
    facts = {} if facts is None else json.loads(facts)
    absent = absent or [f"values of {c}" for c in table.column_names if table[c].null_count]
    if absent or not facts.keys() >= _METADATA:
        raise ValueError(
            f"{path} lacks {', '.join(absent) or 'its metadata'}; nothing was scored. It is not a "
            f"{FILE} of a transfer job, or was rewritten by another program."
        )
    frame = table.to_pandas()
    precisions = [name for name in table.column_names if name not in _LEADING]
    return [
        Predictions(
            split=str(split),
            ids=torch.tensor(part["id"].to_numpy()),
            labels=torch.tensor(part["label"].to_numpy(), dtype=torch.int64),
            classes={p: torch.tensor(part[p].to_numpy(), dtype=torch.int64) for p in precisions},
        )
        for split, part in frame.groupby("split", sort=False, observed=True)
    ], facts
