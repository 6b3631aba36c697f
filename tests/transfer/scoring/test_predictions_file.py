"""The file of predictions: whole, reproducible, readable by anyone."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lowbit.transfer.scoring.predictions_file import (
    FILE,
    Predictions,
    read_predictions,
    write_predictions,
)

FACTS = {"dataset": "digits", "split_sha256": "d" * 64, "class_names": ("zero", "one")}


def _parts():
    test = Predictions(
        "test",
        ids=torch.tensor([4, 9, 70_000]),
        labels=torch.tensor([0, 1, 1]),
        classes={"FP": torch.tensor([0, 1, 1]), "4w4a": torch.tensor([0, 0, 1])},
    )
    val = Predictions(
        "val",
        ids=torch.tensor([5]),
        labels=torch.tensor([1]),
        classes={"FP": torch.tensor([1]), "4w4a": torch.tensor([0])},
    )
    return test, val


def test_pandas_reads_it_without_us(tmp_path):
    write_predictions(tmp_path / FILE, _parts(), **FACTS)
    frame = pd.read_parquet(tmp_path / FILE)
    assert list(frame.columns) == ["split", "id", "label", "FP", "4w4a"]
    assert frame["split"].tolist() == ["test"] * 3 + ["val"]
    assert frame["id"].tolist() == [4, 9, 70_000, 5]
    assert frame["4w4a"].tolist() == [0, 0, 1, 0]
    assert np.mean(frame["4w4a"] == frame["label"]) == 0.5
    facts = json.loads(pq.read_schema(tmp_path / FILE).metadata[b"lowbit-bench"])
    assert facts == {"dataset": "digits", "split_sha256": "d" * 64, "classes": ["zero", "one"]}


def test_it_comes_back_as_written_and_equal_predictions_give_equal_bytes(tmp_path):
    write_predictions(tmp_path / FILE, _parts(), **FACTS)
    found, facts = read_predictions(tmp_path / FILE)
    assert facts["classes"] == ["zero", "one"]
    for wrote, read in zip(_parts(), found, strict=True):
        assert read.split == wrote.split
        assert read.ids.equal(wrote.ids) and read.labels.equal(wrote.labels)
        assert list(read.classes) == ["FP", "4w4a"]
        assert all(read.classes[p].equal(wrote.classes[p]) for p in wrote.classes)
    write_predictions(tmp_path / "again", _parts(), **FACTS)
    assert (tmp_path / "again").read_bytes() == (tmp_path / FILE).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", FILE]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(ValueError, match=r"it is no Parquet file.*nothing was scored"):
        read_predictions(tmp_path / "text")
    pq.write_table(pa.table({"id": [1], "label": [0]}), tmp_path / "other")
    with pytest.raises(ValueError, match="lacks split; nothing was scored"):
        read_predictions(tmp_path / "other")
