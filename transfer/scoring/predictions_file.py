"""Parquet file with the prediction for every scored image, for recomputing scores.

Columns: `split`, the image's `id` in its data set, its `label`, and one column per precision with the
predicted class. The file's metadata, under `lowbit-bench`, is JSON: the data set, the hash of its
splits and the names of the classes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.json_values import parse_json
from lowbit.common.input_files.parquet_pages import Bounds, check_pages
from lowbit.common.text import printable

FILE = "predictions.parquet"
BOUNDS = Bounds()  # ImageNet's 50,000 images at 7 precisions are 500,000 values
_MOST_FACTS = 100_000  # values of the metadata, which names the classes
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
        FileNotFoundError: there is no such file.
        ValueError: the file is not Parquet, expands to more than predictions have, or was not written by
            `write_predictions`.
    """
    try:
        check_pages(path, BOUNDS)
        # Row by row, a text of the dictionary could take more than any file.
        table = pq.read_table(path, read_dictionary=["split"], pre_buffer=False, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system; Arrow's, of what does not decompress, has no number
        raise ValueError(
            f"{path} is not read: {printable(str(error))}; nothing was scored. Copy it again from the job."
        ) from error
    facts = _read_facts(path, table)
    columns = {
        name: table[name].to_numpy().astype(np.int64)
        for name in table.column_names
        if name != "split"
    }
    return [
        Predictions(
            split=split,
            ids=torch.from_numpy(columns["id"][rows]),
            labels=torch.from_numpy(columns["label"][rows]),
            classes={p: torch.from_numpy(columns[p][rows]) for p in columns if p not in _LEADING},
        )
        for split, rows in _rows_by_split(table["split"])
    ], facts


def _read_facts(path: Path, table: pa.Table) -> dict:
    absent = [name for name in _LEADING if name not in table.column_names]
    text = (table.schema.metadata or {}).get(_FACTS, b"{}")
    facts = parse_json(text, f"the metadata of {path}", limit=BOUNDS.footer, values=_MOST_FACTS)
    absent = absent or [f"values of {c}" for c in table.column_names if table[c].null_count]
    strange = [
        f.name for f in table.schema if f.name != "split" and not pa.types.is_integer(f.type)
    ]
    absent = absent or [f"integers in {name}" for name in strange]
    if (
        not absent
        and (most := max((len(c.dictionary) for c in table["split"].chunks), default=0))
        > BOUNDS.words
    ):
        raise ValueError(
            f"{path} has {most:,} splits, where {BOUNDS.words} are allowed; nothing was scored. Copy it "
            "again from the job."
        )
    if absent or not isinstance(facts, dict) or not facts.keys() >= _METADATA:
        raise ValueError(
            f"{path} lacks {printable(', '.join(absent)) or 'its metadata'}; nothing was scored. It is not "
            f"a {FILE} of a transfer job, or was rewritten by another program."
        )
    return facts


def _rows_by_split(column: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every split with its rows, in the order of their first ones."""
    whole = column.unify_dictionaries().combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    words = [str(word) for word in whole.dictionary.to_pylist()]
    codes = np.array([words.index(word) for word in words])[whole.indices.to_numpy()]
    found, first = np.unique(codes, return_index=True)
    for code in found[np.argsort(first)]:
        yield words[code], np.flatnonzero(codes == code)
