"""Detection sets by name: digits of one split only, COCO's format, and a hash of what is drawn."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from pycocotools.coco import COCO

from lowbit import data
from lowbit.detection.datasets import digit_scene_set
from lowbit.detection.datasets.catalog import (
    DETECTION_SETS,
    check_name,
    detection_sha256,
    export_coco,
    load_detection,
)
from lowbit.detection.datasets.digit_scenes import Layout


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_scene_of_a_split_holds_digits_of_that_split_only(split, monkeypatch):
    """Every digit handed to the drawing is an image of that split, and the splits share no image."""
    pools = []
    draw = digit_scene_set.draw_scene
    monkeypatch.setattr(
        digit_scene_set,
        "draw_scene",
        lambda digits, *a, **k: pools.append(digits) or draw(digits, *a, **k),
    )
    load_detection("digit-scenes", split, 2)
    expected = data.load("digits", split)
    assert all(len(pool) == len(expected) for pool in pools) and len(pools) == 2
    assert (pools[0] * 255).round().astype("uint8").tolist() == expected.images[:, 0].tolist()
    others = {"train", "val", "test"} - {split}
    ids = set(expected.ids.tolist())
    assert all(ids.isdisjoint(data.load("digits", other).ids.tolist()) for other in others)


def test_splits_draw_different_scenes_from_one_seed():
    layouts = [
        [boxes.tolist() for boxes in load_detection("digit-scenes", split, 3).boxes]
        for split in ("train", "val", "test")
    ]
    assert layouts[0] != layouts[1] != layouts[2] != layouts[0]


def test_a_longer_set_begins_with_the_shorter_one():
    short, long = (load_detection("digit-scenes", "train", count) for count in (2, 4))
    assert (long.images[:2] == short.images).all() and short.split_sha256 != long.split_sha256


def test_annotations_are_cocos(scenes):
    truth = scenes.to_coco()
    assert [image["id"] for image in truth["images"]] == list(range(1, len(scenes) + 1))
    ids = [annotation["id"] for annotation in truth["annotations"]]
    assert ids == list(range(1, sum(map(len, scenes.boxes)) + 1))
    assert [c["name"] for c in truth["categories"]] == [str(digit) for digit in range(10)]
    first, (x1, y1, x2, y2) = truth["annotations"][0], scenes.boxes[0][0].tolist()
    assert first["bbox"] == [x1, y1, x2 - x1, y2 - y1] and first["iscrowd"] == 0
    assert first["area"] == (x2 - x1) * (y2 - y1)
    assert first["category_id"] == scenes.labels[0][0] + 1
    assert json.loads(json.dumps(truth)) == truth  # plain types only


def test_a_box_is_where_the_digit_was_drawn(scenes, monkeypatch):
    """The set's boxes are the drawing's, to the pixel."""
    drawn = []
    draw = digit_scene_set.draw_scene
    monkeypatch.setattr(
        digit_scene_set, "draw_scene", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
    )
    images = load_detection("digit-scenes", "train", 3)
    for scene, boxes, labels in zip(drawn, images.boxes, images.labels, strict=True):
        assert boxes.tolist() == scene.boxes.tolist() and labels.tolist() == scene.labels.tolist()


def test_an_exported_set_is_what_pycocotools_reads(scenes, tmp_path):
    index = COCO(str(export_coco(scenes, tmp_path)))
    assert len(index.getImgIds()) == len(scenes)
    image = index.loadImgs([3])[0]
    with Image.open(tmp_path / "train" / image["file_name"]) as picture:
        assert picture.size == (64, 64)
        assert list(picture.getpixel((5, 7))) == scenes.images[2][:, 7, 5].tolist()
    assert len(index.getAnnIds(imgIds=[3])) == len(scenes.boxes[2])


def test_an_exported_set_is_read_back_the_same(scenes, tmp_path):
    for split in ("train", "test"):
        export_coco(replace(scenes, split=split), tmp_path / "digits")
    back = load_detection("coco:digits", "train", root=tmp_path)
    assert back.classes == scenes.classes and back.ids == scenes.ids
    for place in range(len(scenes)):
        assert back.image(place).equal(scenes.image(place))
        assert back.boxes[place].equal(scenes.boxes[place])
        assert back.labels[place].equal(scenes.labels[place])


def test_the_hash_follows_everything_that_decides_a_scene():
    def hashed(layout=None, **changes):
        options = {"seed": 0, "train": 10, "test": 5, **changes}
        return detection_sha256("digit-scenes", layout=layout or Layout(), **options)

    known = hashed()
    assert hashed() == known
    # What results on record were named by.
    assert known == "4901194249f098d1f0a50ba6926ceb42c85248d0a13df181eaef0f45c084b2f6"
    for key in ("seed", "train", "test"):
        assert hashed(**{key: 7}) != known
    for layout in (Layout(size=96), Layout(digits=(1, 2)), Layout(overlap=0.2)):
        assert hashed(layout) != known


def test_an_unknown_set_or_split_is_answered_with_what_there_is():
    with pytest.raises(ValueError, match=r"Did you mean 'digit-scenes'\?"):
        load_detection("digit-scens", "train", 1)
    with pytest.raises(ValueError, match="Use train, val or test"):
        load_detection("digit-scenes", "trainval", 1)
    assert {name for name, _ in DETECTION_SETS} == {"coco", "digit_scenes", "voc0712"}
    for name in ("voc:birds", "coco:birds", "coco"):
        assert check_name(name) == name
    for name in ("yolo:birds", "voc:", "voc:a/b", "coco:..\\x"):
        with pytest.raises(ValueError, match="there is no detection set named"):
            check_name(name)


@pytest.mark.parametrize("folder", ["", ".", "..", "../x", "/x", "a\\b", "C:x", "a\0b"])
@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_a_name_that_is_a_path_is_refused(kind, folder):
    with pytest.raises(ValueError, match="there is no detection set named"):
        check_name(f"{kind}:{folder}")
