"""Folders in COCO's format: which file is which split, what is read, and what changes the hash."""

import json
import shutil

import pytest
import torch
from PIL import Image

from lowbit.detection.datasets.catalog import detection_sha256, find_source, load_detection
from tests.detection.annotated_folders import annotation, coco_content, write_coco, write_image

BOXES = [
    annotation(11, 7, 5, [2, 3, 10, 8]),
    annotation(12, 3, 1, [0, 0, 4, 4]),
    annotation(13, 3, 5, [5.5, 6.25, 10, 10]),
    annotation(
        14, 3, 1, [0, 0, 30, 20], iscrowd=1, segmentation={"counts": [1200], "size": [30, 40]}
    ),
]


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path / "pets", "train2017", coco_content(BOXES))
    write_coco(tmp_path / "pets", "val2017", coco_content(BOXES[:1], images=(7,)))
    return tmp_path


def test_a_set_has_images_by_id_and_labels_by_category(root):
    images = load_detection("coco:pets", "train", root=root)
    assert images.classes == ("cat", "dog") and images.category_ids == (1, 5)
    assert images.ids == (3, 7) and len(images) == 2
    assert [labels.tolist() for labels in images.labels] == [[0, 1], [1]]
    assert images.boxes[0].tolist() == [[0, 0, 4, 4], [5.5, 6.25, 15.5, 16.25]]
    assert images.boxes[0].dtype == torch.float32
    assert images.image(1).shape == (3, 30, 40) and images.image(1).dtype == torch.uint8
    with Image.open(root / "pets" / "train2017" / "0007.png") as picture:
        assert list(picture.getpixel((5, 9))) == images.image(1)[:, 9, 5].tolist()


def test_crowds_are_for_evaluation_and_not_for_training(root):
    images = load_detection("coco:pets", "train", root=root)
    assert len(images.objects[0]) == 3 and len(images.boxes[0]) == 2
    assert [a["iscrowd"] for a in images.records()[0]["annotations"]] == [0, 0, 1]
    assert sum(a["iscrowd"] for a in images.to_coco()["annotations"]) == 1


def test_the_truth_is_the_files_own(root):
    """Areas are the masks'; only annotations are numbered anew."""
    truth = load_detection("coco:pets", "train", root=root).to_coco()
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4]
    assert [i["id"] for i in truth["images"]] == [3, 7]
    assert truth["annotations"][0]["area"] == 0.75 * 80
    assert json.loads(json.dumps(truth)) == truth


def test_boxes_are_clipped_and_empty_ones_left_out(root):
    boxes = [annotation(1, 7, 1, [35, 25, 10, 10]), annotation(2, 7, 1, [5, 5, 0, 9])]
    write_coco(root / "pets", "train2017", coco_content(boxes))
    images = load_detection("coco:pets", "train", root=root)
    assert images.boxes[1].tolist() == [[35, 25, 40, 30]] and images.annotated == (1,)
    assert len(images.to_coco()["annotations"]) == 2


@pytest.mark.parametrize("fill", [{}, {"area": None, "iscrowd": None}])
@pytest.mark.parametrize("ids", [(0, 1), (-1, 0), (5, 5), ("a", "b"), (3, "3")])
def test_what_is_missing_or_null_is_filled_in_and_ids_count_from_1(root, ids, fill):
    boxes = [annotation(i, 7, 1, [1, 1, 4, 5], area=None, iscrowd=None) | fill for i in ids]
    write_coco(root / "pets", "train2017", coco_content(boxes))
    found = load_detection("coco:pets", "train", root=root).to_coco()["annotations"]
    assert [(a["id"], a["area"], a["iscrowd"]) for a in found] == [(1, 20, 0), (2, 20, 0)]


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("annotations/{}.json", "images"),
        ("annotations/instances_{}.json", "images/{}"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_other_layouts_are_found(tmp_path, file, pictures):
    for part in ("train", "valid", "test"):
        path = tmp_path / "set" / file.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco_content(BOXES[:1], images=(7,))))
        write_image(tmp_path / "set" / pictures.format(part) / "0007.png", seed=7)
    for split in ("train", "val", "test"):
        images = load_detection("coco:set", split, root=tmp_path)
        assert images.image(0).shape == (3, 30, 40) and images.split == split


def test_without_a_test_part_val_is_tested_on_and_there_is_no_other(root):
    assert load_detection("coco:pets", "test", root=root).ids == (7,)
    with pytest.raises(ValueError, match="has no split 'val', only test, train"):
        load_detection("coco:pets", "val", root=root)


def test_a_count_draws_from_the_whole_set_and_a_larger_one_holds_it(tmp_path):
    ids = tuple(range(1, 101))
    content = coco_content([annotation(i, i, 1, [1, 1, 4, 4]) for i in ids], images=ids)
    for part in ("train", "val"):
        write_coco(tmp_path / "many", part, content, images=False)
    few, more = (load_detection("coco:many", "train", n, root=tmp_path).ids for n in (10, 20))
    assert len(few) == 10 and set(few) < set(more) and list(few) == sorted(few)
    assert set(few) != set(ids[:10])
    assert len(load_detection("coco:many", "train", 10, root=tmp_path).truth["annotations"]) == 10
    with pytest.raises(ValueError, match="has 100 images, but 101 were requested"):
        load_detection("coco:many", "train", 101, root=tmp_path)


def test_the_hash_is_of_what_the_files_say_and_of_the_counts(root, tmp_path):
    counts = {"train": 2, "test": 1}
    known = detection_sha256("coco:pets", root=root, **counts)
    shutil.copytree(root / "pets", root / "renamed")
    assert detection_sha256("coco:renamed", root=root, **counts) == known
    assert detection_sha256("coco:pets", root=root, train=1, test=1) != known
    split = load_detection("coco:pets", "train", root=root).split_sha256
    assert split != load_detection("coco:pets", "test", root=root).split_sha256
    write_coco(root / "renamed", "val2017", coco_content([annotation(1, 7, 1, [2, 3, 10, 9])]))
    assert detection_sha256("coco:renamed", root=root, **counts) != known
    assert load_detection("coco:renamed", "train", root=root).split_sha256 == split


def test_coco_itself_is_trained_on_train2017_and_tested_on_val2017(tmp_path):
    for part in ("train2017", "val2017", "train2014"):
        write_coco(tmp_path / "coco", part, coco_content(BOXES), images=False)
    source = find_source("coco", root=tmp_path)
    files = {split: file.name for split, file in source.files.items()}
    assert files == {"train": "instances_train2017.json", "test": "instances_val2017.json"}
    with pytest.raises(ValueError, match="has two files for train"):
        load_detection("coco:coco", "train", root=tmp_path)


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no annotations to test and train with"):
        load_detection("coco:empty", "train", root=tmp_path)
    file = write_coco(tmp_path / "bad", "train", coco_content(BOXES))
    write_coco(tmp_path / "bad", "val", coco_content(BOXES))
    file.write_text(file.read_text().replace('"bbox"', '"box"', 1))
    file.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_detection("coco:bad", "train", root=tmp_path)
    file.write_text('{"images": []}')
    with pytest.raises(ValueError, match="has no list 'annotations'"):
        load_detection("coco:bad", "train", root=tmp_path)


def test_the_root_is_the_first_usual_one_that_has_the_set(root, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert len(load_detection("coco:pets", "train")) == 2
    monkeypatch.setenv("LOWBIT_DATA", str(root))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    assert len(load_detection("coco:pets", "train")) == 2
