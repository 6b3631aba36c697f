"""Folders in VOC's format: 1-based corners, lists of images, and the bare layout's drawn split."""

import json

import pytest

from lowbit.common.input_files.found_once import finding_once
from lowbit.detection.datasets.catalog import detection_sha256, find_source, load_detection
from lowbit.detection.datasets.check_annotations import check, check_pair
from lowbit.detection.datasets.voc_folder import CLASSES_2007
from lowbit.detection.evaluation.average_precision import evaluate
from lowbit.detection.evaluation.detections_file import write_detections, write_image_names
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


def test_a_plan_hashes_the_annotations_of_a_choice_once(root):
    def found(**chosen):
        return detection_sha256("voc:farm", root=root, **{"train": None, "test": None, **chosen})

    with finding_once():
        known, fewer = found(), found(train=1)
        write_xml(root / "farm" / "Annotations" / "c.xml", [("dog", (5, 5, 9, 10), 0)])
        assert found() == known and found(train=1) == fewer != known
    assert found() != known


def test_a_size_that_is_not_written_is_the_images(root):
    write_xml(root / "farm" / "Annotations" / "a.xml", OBJECTS["a"], size=None)
    entry = load_detection("voc:farm", "train", root=root).truth["images"][0]
    assert (entry["width"], entry["height"]) == SIZE


def test_a_size_that_is_no_number_is_refused_with_its_line(root):
    file = root / "farm" / "Annotations" / "a.xml"
    whole = file.read_text()
    for wrong in ("forty", "nan", "inf"):
        file.write_text(whole.replace(">40<", f">{wrong}<"))
        with pytest.raises(ValueError, match=rf"{file}:2: height '30' and width '{wrong}' are not"):
            load_detection("voc:farm", "train", root=root)
    file.write_text(whole.replace(">40<", ">0<"))
    assert load_detection("voc:farm", "train", root=root).truth["images"][0]["width"] == 40


def test_classes_of_a_list_keep_their_order(root):
    (root / "farm" / "labels.txt").write_text("dog\ncat\nsheep\n")
    assert load_detection("voc:farm", "train", root=root).classes == ("dog", "cat", "sheep")


SMALL = [(0.0, 4.0, 8.0, 11.0), (12.0, 3.0, 18.5, 9.25), (30.0, 20.0, 40.0, 30.0)]  # borders


def small_objects(root, *, skip=0):
    """Write what tools that convert from COCO do, borders counted from 0; return its detections."""
    objects = {name: [("cat", box, 0) for box in SMALL[skip:]] for name in "ab"}
    write_voc(root / "small", objects, {"train": ["a"], "test": ["b"]})
    return [
        {"image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
        for x1, y1, x2, y2 in SMALL[skip:]
    ]


def test_a_corner_of_0_is_refused_until_the_base_is_said(tmp_path):
    found = small_objects(tmp_path)
    images = load_detection("voc:small", "train", root=tmp_path)
    file = tmp_path / "small" / "Annotations" / "a.xml"
    with pytest.raises(ValueError) as caught:
        check(images)
    assert "voc_base: 0" in str(caught.value) and "voc_base: 1" in str(caught.value)
    assert f"{file}:3: annotation 1: a corner of 0" in str(caught.value)
    for base in (0, 1):
        check_pair(
            *(
                load_detection("voc:small", split, root=tmp_path, voc_base=base)
                for split in ("train", "test")
            )
        )
    test = load_detection("voc:small", "test", root=tmp_path, voc_base=0)
    assert [a["bbox"] for a in test.objects[0]] == [d["bbox"] for d in found]
    assert evaluate(test.to_coco(), found)["AP"] == 100


def test_the_base_decides_about_small_objects_and_is_in_the_hash(tmp_path):
    found = small_objects(tmp_path, skip=1)  # no corner of 0 gives it away
    assert evaluate(load_detection("voc:small", "test", root=tmp_path).to_coco(), found)["AP"] < 75
    sets = [load_detection("voc:small", "test", root=tmp_path, voc_base=b) for b in (None, 1, 0)]
    assert sets[0].split_sha256 == sets[1].split_sha256 != sets[2].split_sha256
    assert evaluate(sets[2].to_coco(), found)["AP"] == 100
    hashes = {
        detection_sha256("voc:small", root=tmp_path, train=None, test=None, voc_base=base)
        for base in (0, 1)
    }
    assert len(hashes) == 2
    with pytest.raises(ValueError, match="which only voc:NAME has"):
        load_detection("coco:small", "test", root=tmp_path, voc_base=0)


def test_small_objects_with_fractions_count_whole_by_vocs_metrics_too(tmp_path):
    from lowbit.detection.evaluation.voc_average_precision import score_voc

    found = small_objects(tmp_path)
    images = load_detection("voc:small", "test", root=tmp_path, voc_base=0)
    overall = score_voc(images, found).overall
    assert overall == pytest.approx(dict.fromkeys(overall, 100))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_for_a_drawn_split_are_refused(tmp_path, count):
    (tmp_path / "few" / "annotations").mkdir(parents=True)
    for number in range(count):
        write_xml(tmp_path / "few" / "annotations" / f"{number}.xml", OBJECTS["a"])
    with pytest.raises(ValueError, match=f"voc:few has {count} annotations in .*few/annotations"):
        find_source("voc:few", root=tmp_path)


def test_pycocotools_reads_kept_detections(root, tmp_path):
    from pycocotools.coco import COCO

    images = load_detection("voc:farm", "train", root=root)
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1}
        for a in images.truth["annotations"]
    ]
    (tmp_path / "truth.json").write_text(json.dumps(images.to_coco()))
    name = write_detections(tmp_path, found)
    loaded = COCO(str(tmp_path / "truth.json")).loadRes(str(tmp_path / name))
    assert loaded.getImgIds() == [1, 2] and len(loaded.getAnnIds()) == 3
    written = tmp_path / write_image_names(tmp_path, images)["image_names"]
    assert json.loads(written.read_text()) == {"1": "a.jpg", "2": "b.jpg"}
    assert [images.image_id(name) for name in ("a", "b", 2)] == [1, 2, 2]  # as kept before


def test_what_cannot_be_read_is_said_with_its_line(root):
    file = root / "farm" / "Annotations" / "a.xml"
    whole = file.read_text()
    file.write_text(whole.replace("<xmin>3</xmin>", ""))
    with pytest.raises(ValueError, match=rf"{file}:8: an object has no box of four numbers"):
        load_detection("voc:farm", "train", root=root)
    file.write_text(whole.replace("<xmin>3</xmin>", "<xmin>nan</xmin>"))
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
