"""The share of predictions that rounding decides, from a result's details to the frame."""

import json
import math

import pytest

from lowbit.benchmark.results.frame import load_frame
from tests.benchmark.result_folders import FIXTURES


@pytest.fixture
def shares(tmp_path):
    def read(detail):
        written = json.loads((FIXTURES / "version-2.json").read_text())
        if detail is not None:
            written["details"]["rounding"] = detail
        folder = tmp_path / written["job_id"]
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(written))
        frame = load_frame(tmp_path)
        assert len(frame) and (frame["status"] == "completed").all()
        return dict(zip(frame["precision"], frame["rounding"], strict=True))

    return read


def test_belongs_to_the_numbers_of_its_precision(shares):
    found = shares({"images": 540, "share": {"4w4a": 2.5, "2w2a": 0}})
    assert found.pop("4w4a") == 2.5
    assert all(value == 0 if name == "2w2a" else math.isnan(value) for name, value in found.items())


@pytest.mark.parametrize(
    "detail",
    [
        None,
        "much",
        {},
        {"share": 3},
        *({"share": {"4w4a": x}} for x in ("3", None, True, -1, 101, [3])),
    ],
)
def test_results_without_it_or_with_nonsense_are_read(shares, detail):
    assert all(map(math.isnan, shares(detail).values()))
