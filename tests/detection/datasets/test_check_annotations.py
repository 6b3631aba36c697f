"""Annotation checks: what is fatal refuses the training, and every finding has its file and line."""

import json
import logging
import shutil

import pytest
from PIL import Image

from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.datasets.check_annotations import check, check_pair
from tests.detection.annotated_folders import (
    annotation,
    coco_content,
    write_coco,
    write_image,
    write_voc,
)

GOOD = [annotation(11, 7, 5, [2, 3, 10, 8]), annotation(12, 3, 1, [0, 0, 40, 30])]


@pytest.fixture
def load(tmp_path):
    """Return a function that writes annotations and loads them as a training set."""

    def write(annotations, **options):
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        for part in ("train", "val"):
            write.file = write_coco(tmp_path / "pets", part, coco_content(annotations, **options))
        write.file = write.file.with_name("instances_train.json")
        return load_detection("coco:pets", "train", root=tmp_path)

    return write


def line_of(file, text: str) -> int:
    return 1 + file.read_text()[: file.read_text().index(text)].count("\n")


def test_a_good_set_passes_in_silence(load, scenes, caplog):
    assert check(load(GOOD)) == [] and check(scenes) == []
    assert not caplog.records


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (annotation(13, 7, 9, [2, 3, 10, 8]), "an unknown class: 1"),
        (annotation(13, 8, 1, [2, 3, 10, 8]), "an unknown image: 1"),
        (annotation(13, 7, 1, [40, 3, 10, 8]), "a box outside its image: 1"),
        (annotation(13, 7, 1, [2, -8, 10, 8]), "a box outside its image: 1"),
        (annotation(13, 7, 1, [2, 3, -1, 8], area=8), "a box that is none: 1"),
    ],
)
def test_a_fatal_finding_refuses_and_names_the_line(load, wrong, told):
    images = load([*GOOD, wrong])
    with pytest.raises(ValueError) as caught:
        check(images)
    message = str(caught.value)
    assert "1 errors; nothing was trained" in message and told in message
    assert (
        f"{load.file}:{line_of(load.file, chr(34) + 'id' + chr(34) + ': 13')}: annotation 13"
        in message
    )


def test_an_id_twice_names_both_lines(load):
    images = load([*GOOD, annotation(11, 3, 1, [1, 1, 5, 5])])
    with pytest.raises(
        ValueError, match=r"an id twice in annotations: 1\n.*train\.json:\d+,\d+: id 11"
    ):
        check(images)
    with pytest.raises(ValueError, match=r"an id twice in images: 1\n.*train\.json:\d+,\d+: id 7"):
        check(load(GOOD, images=(7, 3, 7)))
    with pytest.raises(ValueError, match="a class name twice: 2"):
        check(load(GOOD, categories=((1, "cat"), (5, "cat"))))


def test_image_files_are_looked_at(load, monkeypatch):
    images = load(GOOD)
    path = load.file.parents[1] / "train" / "0007.png"
    file = images.images.paths[1]
    write_image(load.file.parents[1] / "train" / "0007.png", size=(30, 40))
    with pytest.raises(
        ValueError, match=r"of another size: 1\n.*0007.png is 30x40 upright, not 40x30"
    ):
        check(images)
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(ValueError, match=r"a damaged image file: 1\n.*0007.*truncated"):
        check(images)
    path.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow refuses twice as many
        with pytest.raises(ValueError, match=r"a damaged image file: 2\n.*0003.*bomb"):
            check(images)
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"a damaged image file: 1\n.*train\.json:\d+: .*0007"):
        check(images)
    load.file.parents[1].joinpath("train", "0007.png").unlink()
    with pytest.raises(ValueError, match=rf"a missing image file: 1\n.*there is no {file}"):
        check(images)


def test_harmless_findings_are_listed_once(load, caplog):
    harmless = [
        annotation(13, 7, 1, [35, 3, 6, 8]),
        annotation(14, 7, 1, [5, 3, 0, 8]),
        *(annotation(i, 7, 1, [5, 3, 4, 8], area=None, iscrowd=None) for i in range(20, 29)),
        annotation(15, 7, 1, [35, 3, 5.009, 8]),  # the rounding of two decimals
    ]
    images = load([*GOOD, *harmless])
    with caplog.at_level(logging.WARNING):
        findings = check(images)
    assert len(caplog.records) == 1
    text = caplog.text
    for kind in (
        "a box that reaches out of its image, clipped: 1",
        "a box without area, not trained on: 1",
        "a missing area, taken to be the box's: 9",
        "a missing iscrowd, taken to be 0: 9",
    ):
        assert kind in text
    assert "and 4 more" in text and len(findings) == 20
    place = line_of(load.file, '"id": 13')
    assert f"{load.file}:{place}: annotation 13: by 1 pixels" in text


def test_no_object_or_image_at_all_is_fatal(load, tmp_path):
    crowds = [annotation(1, 7, 1, [2, 3, 9, 8], iscrowd=1), annotation(2, 7, 1, [2, 3, 0, 8])]
    for annotations, images in (([], (7, 3)), (crowds, (7, 3)), ([], ())):
        with pytest.raises(ValueError, match=r"no annotated object: 1\n.*instances_train\.json"):
            check(load(annotations, images=images))
    objects = {"a": [("cat", (1, 1, 9, 9), 0)], "b": [("cat", (1, 1, 9, 9), 1)]}
    write_voc(tmp_path / "hard", objects, {"train": [], "test": ["b"]})
    with pytest.raises(ValueError, match=r"no annotated object: 1\n.*hard: 0 images"):
        check(load_detection("voc:hard", "train", root=tmp_path))
    with pytest.raises(ValueError, match=r"only difficult objects to test on: 1\n.*b\.xml"):
        check(load_detection("voc:hard", "test", root=tmp_path))


def test_one_image_is_enough(load, tmp_path, caplog):
    assert check(load([annotation(1, 7, 1, [2, 3, 9, 8])], images=(7,))) == []


def test_an_image_file_twice_is_fatal(load):
    with pytest.raises(ValueError, match=r"an image file twice: 2\n.*\d+: .*0007\.png"):
        images = load(GOOD)
        again = {**images.truth["images"][1], "id": 8}
        content = json.loads(load.file.read_text())
        content["images"].append(again)
        load.file.write_text(json.dumps(content, indent=1))
        check(load_detection("coco:pets", "train", root=load.file.parents[2]))


def test_a_voc_folders_findings_name_its_files(tmp_path):
    objects = {
        "a": [("cat", (1, 1, 9, 9), 0)],
        "b": [("cat", (0, 1, 9, 9), 0), ("dog", (1, 1, 9, 9), 0), ("cat", (60, 1, 69, 9), 0)],
    }
    root = write_voc(tmp_path / "farm", objects, {"train": ["a"], "test": ["b"]})
    with pytest.raises(ValueError) as caught:
        check(load_detection("voc:farm", "test", root=tmp_path))
    file = root / "Annotations" / "b.xml"
    assert f"an unknown class: 1\n    {file}:8: annotation 2: class 'dog'" in str(caught.value)
    assert f"a box outside its image: 1\n    {file}:13: annotation 3" in str(caught.value)


def test_train_and_test_have_the_same_classes_and_no_common_image(load, tmp_path):
    train, test = load(GOOD), load_detection("coco:pets", "test", root=tmp_path)
    check_pair(train, test)
    with pytest.raises(
        ValueError, match=r"2 images of train .* are also training images \(such as .*0003.png"
    ):
        check_pair(train, train)
    write_coco(tmp_path / "pets", "val", coco_content(GOOD, categories=((1, "cat"), (5, "fox"))))
    with pytest.raises(ValueError, match=r"differ in their classes \(\['dog', 'fox'\]\)"):
        check_pair(train, load_detection("coco:pets", "test", root=tmp_path))
    write_coco(tmp_path / "pets", "val", coco_content([annotation(1, 9, 5, [2, 3, 9, 8])]))
    with pytest.raises(ValueError, match="of test of coco:pets have 1 errors"):
        check_pair(train, load_detection("coco:pets", "test", root=tmp_path))
