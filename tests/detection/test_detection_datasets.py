"""Detection sets: COCO's format, digits of one split only, and a hash of what is drawn."""

import json

import pytest
from PIL import Image
from pycocotools.coco import COCO

import data
from detection import datasets
from detection.datasets import DETECTION_SETS, export_coco, load_detection, scenes_sha256
from detection.scenes import Layout


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_scene_of_a_split_holds_digits_of_that_split_only(split, monkeypatch):
    """Every digit handed to the drawing is an image of that split, and the splits share no image."""
    pools = []
    draw = datasets.draw_scene
    monkeypatch.setattr(
        datasets,
        "draw_scene",
        lambda digits, *a, **k: pools.append(digits) or draw(digits, *a, **k),
    )
    datasets.digit_scenes(split, 2)
    expected = data.load("digits", split)
    assert all(len(pool) == len(expected) for pool in pools) and len(pools) == 2
    assert (pools[0] * 255).round().astype("uint8").tolist() == expected.images[:, 0].tolist()
    others = {"train", "val", "test"} - {split}
    ids = set(expected.ids.tolist())
    assert all(ids.isdisjoint(data.load("digits", other).ids.tolist()) for other in others)


def test_splits_draw_different_scenes_from_one_seed():
    layouts = [
        [boxes.tolist() for boxes in datasets.digit_scenes(split, 3).boxes]
        for split in ("train", "val", "test")
    ]
    assert layouts[0] != layouts[1] != layouts[2] != layouts[0]


def test_a_longer_set_begins_with_the_shorter_one():
    short, long = datasets.digit_scenes("train", 2), datasets.digit_scenes("train", 4)
    assert (long.images[:2] == short.images).all()


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


def test_an_exported_set_is_what_pycocotools_reads(scenes, tmp_path):
    index = COCO(str(export_coco(scenes, tmp_path)))
    assert len(index.getImgIds()) == len(scenes)
    image = index.loadImgs([3])[0]
    with Image.open(tmp_path / "train" / image["file_name"]) as picture:
        assert picture.size == (64, 64)
        assert list(picture.getpixel((5, 7))) == scenes.images[2][:, 7, 5].tolist()
    assert len(index.getAnnIds(imgIds=[3])) == len(scenes.boxes[2])


def test_the_hash_follows_everything_that_decides_a_scene():
    base = {"seed": 0, "train": 10, "test": 5}
    known = scenes_sha256(Layout(), **base)
    assert scenes_sha256(Layout(), **base) == known
    for key in base:
        assert scenes_sha256(Layout(), **{**base, key: 7}) != known
    for layout in (Layout(size=96), Layout(digits=(1, 2)), Layout(overlap=0.2)):
        assert scenes_sha256(layout, **base) != known


def test_an_unknown_set_or_split_is_answered_with_what_there_is():
    with pytest.raises(ValueError, match=r"Did you mean 'digit-scenes'\?"):
        load_detection("digit-scens", "train", 1)
    with pytest.raises(ValueError, match="Use train, val or test"):
        load_detection("digit-scenes", "trainval", 1)
    assert "digit_scenes" in DETECTION_SETS
