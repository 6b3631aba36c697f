"""Folders in VOC's format: 1-based corners, lists of images, and the bare layout's drawn split."""

import pytest

from lowbit.detection.datasets.catalog import detection_sha256, find_source, load_detection
from lowbit.detection.datasets.voc_folder import CLASSES_2007
from tests.detection.annotated_folders import SIZE, write_image, write_voc, write_xml

OBJECTS = {
    "a": [("dog", (1, 1, 40, 30), 0), ("cat", (3, 4, 3, 9), 1)],
    "b": [("cat", (2, 2, 11, 6), 0)],
    "c": [("dog", (5, 5, 9, 9), 0)],
    "d": [],
}


def names(images):
    """Return the names of a set's images, without their extension."""
    return tuple(image["file_name"].partition(".")[0] for image in images.truth["images"])


@pytest.fixture
def root(tmp_path):
    lists = {"trainval": ["a", "b"], "train": ["a"], "val": ["b"], "test": ["c", "d"]}
    write_voc(tmp_path / "farm", OBJECTS, lists)
    return tmp_path


@pytest.fixture
def bare(tmp_path):
    for number in range(40):
        write_image(tmp_path / "bare" / "images" / f"{number}.png")
        write_xml(tmp_path / "bare" / "annotations" / f"{number}.xml", OBJECTS["a"])
    return tmp_path


def test_corners_count_from_1_and_belong_to_the_box(root):
    images = load_detection("voc:farm", "train", root=root)
    assert images.boxes[0].tolist() == [[0, 0, *SIZE], [2, 3, 3, 9]]  # the whole image; 1x6 pixels
    assert [a["bbox"] for a in images.objects[0]] == [[0, 0, *SIZE], [2, 3, 1, 6]]
    assert [a["difficult"] for a in images.objects[0]] == [0, 1]
    assert images.classes == ("cat", "dog") and images.labels[0].tolist() == [1, 0]
    assert images.ids == (1, 2) and images.image(0).shape == (3, 30, 40)


def test_trainval_is_trained_on_and_test_is_tested_on(root):
    assert names(load_detection("voc:farm", "test", root=root)) == ("c", "d")
    assert load_detection("voc:farm", "test", root=root).annotated == (0,)
    with pytest.raises(ValueError, match="has no split 'val'"):
        load_detection("voc:farm", "val", root=root)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (("train", "val", "test"), {"train": ("a",), "val": ("b",), "test": ("c", "d")}),
        (("train", "val"), {"train": ("a",), "test": ("b",)}),
        (("train", "test"), {"train": ("a",), "test": ("c", "d")}),
    ],
)
def test_without_trainval_the_lists_that_there_are(tmp_path, present, expected):
    lists = {"train": ["a"], "val": ["b"], "test": ["c", "d"]}
    write_voc(tmp_path / "farm", OBJECTS, {part: lists[part] for part in present})
    source = find_source("voc:farm", root=tmp_path)
    assert {split: names(source.load(split)) for split in source.parts} == expected


def test_a_bare_folder_is_split_once_and_for_all(bare):
    train, test = (set(names(load_detection("voc:bare", s, root=bare))) for s in ("train", "test"))
    assert len(train) == 32 and len(test) == 8 and not train & test
    assert test == {"7", "13", "24", "0", "31", "27", "30", "16"}
    write_xml(bare / "bare" / "annotations" / "new.xml", OBJECTS["a"])
    write_image(bare / "bare" / "images" / "new.png")
    assert len(test & set(names(load_detection("voc:bare", "test", root=bare)))) >= 7


def test_07_and_12_are_trained_on_together(tmp_path):
    objects = {name: [("cow", (1, 1, 9, 9), 0)] for name in ("000001", "000002")}
    write_voc(tmp_path / "VOC2007", objects, {"trainval": ["000001"], "test": ["000002"]})
    write_voc(
        tmp_path / "VOC2012",
        {"2008_000001": [("sheep", (1, 1, 9, 9), 0)]},
        {"trainval": ["2008_000001"]},
    )
    train = load_detection("voc0712", "train", root=tmp_path)
    assert names(train) == ("000001", "2008_000001") and train.classes == CLASSES_2007
    assert [labels.item() for labels in train.labels] == [
        CLASSES_2007.index("cow"),
        CLASSES_2007.index("sheep"),
    ]
    assert names(load_detection("voc0712", "test", root=tmp_path)) == ("000002",)
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "trainval.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"VOC2012/ImageSets/Main/trainval\.txt"):
        load_detection("voc0712", "train", root=tmp_path)


def test_the_hash_is_of_the_annotations_of_the_chosen_images(root):
    known = detection_sha256("voc:farm", root=root, train=None, test=None)
    (root / "farm").rename(root / "moved")
    assert detection_sha256("voc:moved", root=root, train=None, test=None) == known
    assert detection_sha256("voc:moved", root=root, train=1, test=None) != known
    write_xml(root / "moved" / "Annotations" / "c.xml", [("dog", (5, 5, 9, 10), 0)])
    assert detection_sha256("voc:moved", root=root, train=None, test=None) != known


def test_a_size_that_is_not_written_is_the_images(root):
    write_xml(root / "farm" / "Annotations" / "a.xml", OBJECTS["a"], size=None)
    entry = load_detection("voc:farm", "train", root=root).truth["images"][0]
    assert (entry["width"], entry["height"]) == SIZE


def test_classes_of_a_list_keep_their_order(root):
    (root / "farm" / "labels.txt").write_text("dog\ncat\nsheep\n")
    assert load_detection("voc:farm", "train", root=root).classes == ("dog", "cat", "sheep")


def test_what_cannot_be_read_is_said_with_its_line(root):
    file = root / "farm" / "Annotations" / "a.xml"
    whole = file.read_text()
    file.write_text(whole.replace("<xmin>3</xmin>", ""))
    with pytest.raises(ValueError, match=rf"{file}:8: an object has no box of four numbers"):
        load_detection("voc:farm", "train", root=root)
    file.write_text(whole.replace("</size>", "", 1))
    with pytest.raises(ValueError, match=rf"{file}:\d+: this is not XML"):
        load_detection("voc:farm", "train", root=root)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*a\.xml, which the list of images names"):
        load_detection("voc:farm", "train", root=root)
    with pytest.raises(FileNotFoundError, match="has no folder of annotations"):
        load_detection("voc:nowhere", "train", root=root)
