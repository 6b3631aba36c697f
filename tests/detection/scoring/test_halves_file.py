"""Numbers on halves of the images: written whole, read back, and refused where they are not that."""

import numpy as np
import pytest

from lowbit.detection.scoring.halves_file import FILE, read_halves, write_halves

TRUTH = {
    "images": [{"id": 1}, {"id": 2}, {"id": 3}],
    "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
ROWS = [
    {"metric": metric, "precision": precision, "split": "test", "value": value}
    for precision, metric, value in [("FP", "AP", 50.0), ("FP", "AP50", 70.0), ("4w4a", "AP", 45.0)]
]


def halves(seed=0):
    draw = np.random.default_rng(seed)
    return {p: {m: draw.normal(50, 1, 200) for m in ("AP", "APl")} for p in ("FP", "4w4a")}


def test_what_was_written_is_read(tmp_path):
    found = halves()
    assert write_halves(tmp_path, TRUTH, ROWS, found) == {"halves": FILE}
    read = read_halves(tmp_path / FILE)
    assert read.images == 3
    assert read.values == {("test", "FP", "AP"): 50.0, ("test", "4w4a", "AP"): 45.0}
    for (_, precision, metric), values in read.halves.items():
        np.testing.assert_array_equal(values, found[precision][metric])


def test_the_key_tells_other_images_and_other_objects(tmp_path):
    moved = [{**TRUTH["annotations"][0], "bbox": [1, 2, 3, 5]}]
    keys = []
    for truth in (
        TRUTH,
        {**TRUTH, "images": TRUTH["images"][::-1]},
        {**TRUTH, "images": TRUTH["images"][:2]},
        {**TRUTH, "annotations": moved},
    ):
        write_halves(tmp_path, truth, ROWS, halves())
        keys.append(read_halves(tmp_path / FILE).key)
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_nothing_known_on_halves_leaves_no_file(tmp_path):
    assert write_halves(tmp_path, TRUTH, ROWS, {"FP": {}}) == {}
    assert not (tmp_path / FILE).exists()


def test_other_files_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"test FP AP": [1.0, 2.0]}), tmp_path / FILE)
    with pytest.raises(ValueError, match="no numbers on halves"):
        read_halves(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(ValueError):
        read_halves(tmp_path / FILE)
