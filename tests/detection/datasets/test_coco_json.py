"""COCO's JSON: what is not of its type is refused with its line, and lines are found in any layout."""

import json

import pytest
from pydantic_core import from_json

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
    *(("images", "file_name", value) for value in (None, 4, "", ["a.jpg"])),
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
