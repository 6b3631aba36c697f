"""COCO's JSON: what is not of its type is refused with its line, and lines are found in any layout."""

import json
import os

import pytest
from pydantic_core import from_json

from lowbit.detection.datasets import coco_json
from lowbit.detection.datasets.coco_json import Places, read_json
from tests.detection.annotated_folders import annotation, coco_content

POLYGON = [[1, 1, 9.5, 1, 9.5, 9]]


def content():
    """Return two entries a section, with ids that repeat between sections and inside entries."""
    boxes = [
        annotation(7, 7, 5, [2, 3, 10, 8], attributes={"id": 3, "note": '{"id": 3'}),
        annotation(3, 3, 1, [0, 0.5, 4, 4], segmentation=POLYGON, keypoints=[1, 2, 0]),
    ]
    return {"info": {"images": [{"id": 3}]}, **coco_content(boxes, categories=((7, "a"), (3, "b")))}


def write(path, value, **layout):
    path.write_text(json.dumps(value, **layout))
    return path


@pytest.mark.parametrize(
    "right",
    [
        {"area": None, "iscrowd": None},
        {"segmentation": None, "keypoints": None},
        {"segmentation": []},
        {"segmentation": {"counts": [3, 1197], "size": [30, 40]}, "iscrowd": 1},
        {"segmentation": {"counts": "1a2", "size": [30, 40]}},
        {"id": "text"},
        {"id": -1},
        {"bbox": [0, 0, 0, 0], "area": 0},
        {"unknown": "5"},
    ],
)
def test_what_coco_has_is_read(tmp_path, right):
    written = content()
    written["annotations"][1] |= right
    assert read_json(write(tmp_path / "a.json", written)) == written


NUMBERS = (None, "4", True, [4], {}, 1.5)
WRONG = [
    *(("images", "id", value) for value in NUMBERS),
    *(("images", side, value) for side in ("width", "height") for value in (*NUMBERS, 0, -4, 64.0)),
    *(
        ("images", "file_name", value)
        for value in (
            None,
            4,
            "",
            ["a.jpg"],
            "../a.jpg",
            "a/../../b.jpg",
            "/etc/a.jpg",
            "C:\\a.jpg",
            "a\\b.jpg",
            "a\0.jpg",
            "\ud800.jpg",
        )
    ),
    *(("images", side, value) for side in ("width", "height") for value in (2**20 + 1, 10**400)),
    *((section, "id", 2**63) for section in ("images", "categories")),
    *(("annotations", name, -(2**63) - 1) for name in ("image_id", "category_id")),
    *(("annotations", "id", value) for value in (None, 1.5, True, [4], {})),
    *(("annotations", name, v) for name in ("image_id", "category_id") for v in NUMBERS),
    *(("annotations", "area", value) for value in ("400", True, [4], -1, float("nan"), 1e999)),
    *(("annotations", "iscrowd", value) for value in ("0", True, False, 2, -1, 0.0, [])),
    *(
        ("annotations", "bbox", value)
        for value in (
            None,
            "1,2,3,4",
            [1, 2, 3],
            [1, 2, 3, 4, 5],
            [],
            ["1", "2", "3", "4"],
            [1, 2, 3, None],
            [1, 2, True, 4],
            [1, 2, float("nan"), 4],
            [1, float("-inf"), 3, 4],
            [1, 2, 10**400, 4],
            [1e300, -1e300, 3, 4],
            [2**20, 0, 3, 4],
            {"x": 1},
        )
    ),
    *(
        ("annotations", "segmentation", value)
        for value in (
            "poly",
            [1, 2, 3, 4, 5, 6],
            [["1", 2, 3, 4, 5, 6]],
            [[1, 2, float("nan"), 4, 5, 6]],
            [[1e300, -1e300, 3, 4, 5, 6]],
            {"counts": [3, 4], "size": [30, 40]},
            {"counts": [-3, 1203], "size": [30, 40]},
            {"counts": [], "size": [30, 40]},
            {"counts": "1a2", "size": [2**20, 2**20]},
            {"counts": 3, "size": [30, 40]},
            {"counts": [3, "4"], "size": [30, 40]},
            {"counts": [3], "size": 30},
            {"counts": [3]},
            True,
        )
    ),
    *(("annotations", "keypoints", value) for value in ("1", [1, "2", 3], 4)),
    *(("categories", "id", value) for value in NUMBERS),
    *(("categories", "name", value) for value in (None, 4, "", ["cat"])),
]


@pytest.mark.parametrize(("section", "field", "value"), WRONG)
def test_values_of_another_type_are_refused_with_file_and_line(tmp_path, section, field, value):
    written = content()
    written[section][1][field] = value
    file = write(tmp_path / "a.json", written, indent=1)
    with pytest.raises(ValueError) as caught:
        read_json(file)
    first, kind, found = str(caught.value).splitlines()
    assert first.startswith(f"{file} has 1 value ") and "nothing was loaded" in first
    assert kind == f"  {field} of {section}: 1"
    lines = file.read_text().splitlines()
    begin = lines.index(f' "{section}": [')
    end = next(n for n, text in enumerate(lines) if n > begin and text.startswith(" ]"))
    own = f'   "{field}":'  # not one of a nested object
    line = max(n for n, text in enumerate(lines[:end], 1) if n > begin and text.startswith(own))
    assert found.startswith(f"    {file}:{line}: entry 2 of {section} (id ")
    assert f": {field} is {json.dumps(value)[:50]}" in found


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_what_is_missing_is_refused_with_file_and_line(tmp_path, section):
    file = tmp_path / "a.json"
    for field in content()[section][1].keys() - {"area", "iscrowd", "segmentation", "keypoints"}:
        written = content()
        del written[section][1][field]
        write(file, written, indent=1)
        with pytest.raises(ValueError, match=rf"{file}:\d+: entry 2 of {section}.* has no {field}"):
            read_json(file)
    for entry in (None, 4, [], "cat"):
        write(file, content() | {section: [entry]}, indent=1)
        with pytest.raises(ValueError, match=rf"{file}:\d+: entry 1 of {section} is .*not an obj"):
            read_json(file)


@pytest.mark.parametrize("field", ["area", "unknown"])
def test_what_nests_in_a_field_is_refused_or_left_alone(tmp_path, field, monkeypatch):
    """What the parser still reads may be too deep for what looks at it further down the stack."""
    written = json.dumps(content(), indent=1)
    nested = "[" * 50 + "]" * 50
    file = tmp_path / "a.json"
    file.write_text(written.replace('"iscrowd": 0', f'"iscrowd": 0, "{field}": {nested}', 1))
    if field == "unknown":
        assert read_json(file)["annotations"][0]["unknown"]
        return
    with pytest.raises(ValueError, match=r"a\.json:\d+: entry 1 of annotations .*area is \[\["):
        read_json(file)

    def overflow(*_args):
        raise RecursionError

    monkeypatch.setattr(coco_json.json, "dumps", overflow)
    with pytest.raises(ValueError, match=r"area is \[\[\[\[\[\.\.\."):
        read_json(file)
    monkeypatch.setattr(coco_json, "_starts", overflow)
    with pytest.raises(ValueError, match=r"a\.json .*nested too deeply; nothing was loaded"):
        read_json(file)


def test_a_polygon_of_many_corners_is_read(tmp_path):
    """Its coordinates together are larger than any one may be."""
    written = content()
    written["annotations"][1]["segmentation"] = [[1000.5] * 2000]
    assert read_json(write(tmp_path / "a.json", written)) == written


def test_an_integer_of_thousands_of_digits_is_refused(tmp_path):
    file = write(tmp_path / "a.json", content(), indent=1)
    file.write_text(file.read_text().replace('"image_id": ', f'"image_id": {"9" * 5000}', 1))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "9" * 5000 in text)
    with pytest.raises(
        ValueError, match=rf"not JSON \(line {line} has a number of 5,001 digits"
    ) as caught:
        read_json(file)
    assert len(str(caught.value)) < 400


def test_annotations_that_are_no_file_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json .*it is a named pipe, not a file"):
        read_json(tmp_path / "a.json")


def test_a_few_of_every_kind_are_listed(tmp_path):
    written = content()
    written["annotations"] *= 4
    written["annotations"] = [{**a, "area": "4", "iscrowd": "0"} for a in written["annotations"]]
    with pytest.raises(ValueError) as caught:
        read_json(write(tmp_path / "a.json", written))
    text = str(caught.value)
    assert "has 16 values" in text and "area of annotations: 8" in text
    assert text.count("area is") == text.count("iscrowd is") == 5 and text.count("and 3 more") == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("layout", [{"indent": 1}, {"indent": "\t", "separators": (" ,", " : ")}])
def test_the_line_of_an_id_is_its_entrys_own(tmp_path, encoding, layout):
    """The id 3 is in every section, in nested objects, and in a text."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content(), **layout), encoding=encoding)
    lines = file.read_text(encoding=encoding).splitlines()
    for section, mark in (
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("categories", "name"),
    ):
        place = Places(file)(section, 3)
        number = int(place.removeprefix(f"{file}:"))
        assert lines[number - 1].strip().strip(",").replace(" ", "") == '"id":3'
        assert any(f'"{mark}"' in line for line in lines[number : number + 6])
    assert Places(file)("images", 4) == str(file)
    assert read_json(file) == from_json(file.read_text(encoding=encoding).lstrip("\ufeff"))


def test_an_id_twice_has_both_lines(tmp_path):
    written = content()
    written["images"].append(written["images"][0])
    place = Places(write(tmp_path / "a.json", written, indent=1))("images", 7)
    assert len(place.rpartition(":")[2].split(",")) == 2


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "null", "3", '{"images": {}}'])
def test_what_is_not_such_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.json (is not JSON|has no list 'images')"):
        read_json(tmp_path / "a.json")
