"""Detections are read a piece at a time, and are those of the standard library's reader."""

import json

import pytest

from lowbit.detection.evaluation import detections_file
from lowbit.detection.evaluation.detections_file import read_detections


def _some(count, **more):
    return [
        {"image_id": n, "category_id": 1 + n % 3, "bbox": [n / 7, 0.0, 5, 5], "score": 0.5, **more}
        for n in range(count)
    ]


MASK = {"segmentation": {"size": [5, 5], "counts": "PPYo1:]"}}
TRAP = {"segmentation": {"size": [5, 5], "counts": "}, {'[\\\"]"}}


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("content", [[], _some(1), _some(300), _some(50, **MASK)])
@pytest.mark.parametrize("block", [512, 5000, 1 << 20])
def test_pieces_are_the_whole(tmp_path, monkeypatch, layout, content, block):
    monkeypatch.setattr(detections_file, "_BLOCK", block)
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(content, **layout))
    assert list(read_detections(path)) == content


def test_a_text_that_looks_like_a_boundary_is_read_or_refused_and_never_read_wrong(
    tmp_path, monkeypatch
):
    path, content = tmp_path / "detections.json", _some(50, **TRAP)
    path.write_text(json.dumps(content))
    assert list(read_detections(path)) == content
    monkeypatch.setattr(detections_file, "_BLOCK", 512)
    try:
        assert list(read_detections(path)) == content
    except ValueError as error:
        assert "cannot be read" in str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[", b"[1", b'[{"a": 1}, ]', b"[] []", b'[{"a": 1}], [{"a": 1}]', b"[" * 5000]
    + [b'[{"a": ' + b" " * 9000 + b"1}]"],
)
def test_other_texts_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(detections_file, "_BLOCK", 512)
    monkeypatch.setattr(detections_file, "_LONGEST", 2048)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="a, a list of detections, cannot be read: "):
        list(read_detections(tmp_path / "a"))
