"""Names in VOC's lists, and which of several images is an annotation's."""

import os

import pytest

from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.datasets.check_annotations import check
from lowbit.detection.datasets.voc_lists import read_image_names, read_list
from tests.detection.annotated_folders import write_image, write_voc, write_xml

CAT = [("cat", (2, 2, 11, 12), 0)]


def loaded(root, lines, *, encoding="utf-8"):
    """Return the file names of the training images that a list names."""
    list_ = root / "ImageSets" / "Main" / "train.txt"
    list_.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    images = load_detection("voc:farm", "train", root=root.parent)
    check(images)
    return [image["file_name"] for image in images.truth["images"]]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a", "a"),
        ("a", "a  1"),
        ("a", "a -1"),
        ("a", "  a\t0 "),
        ("a", "a.jpg"),
        ("a", "a.JPG 1"),
        ("IMG 1 (copy)", "IMG 1 (copy)"),
        ("IMG 1 (copy)", "IMG 1 (copy)  1"),
        ("IMG 1", "IMG 1"),
        ("IMG 1", "IMG 1 1"),
        ("IMG 1", "IMG 1.jpg -1"),
        ("v1.2", "v1.2"),
        ("v1.2", "v1.2.jpg"),
        ("猫 ё", "猫 ё"),
        ("sub/a", "sub/a"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_line_of_a_list_names_its_image(tmp_path, name, line, encoding):
    (tmp_path / "farm/JPEGImages/sub").mkdir(parents=True)
    root = write_voc(tmp_path / "farm", {name: CAT}, {"train": [], "test": [name]})
    assert loaded(root, [line], encoding=encoding) == [f"{name.rpartition('/')[2]}.jpg"]


@pytest.mark.parametrize(
    "line", ["../a", "/etc/a", "a/../../b", "C:\\a", "sub\\a", "a\0b", "..", "../a 1"]
)
def test_a_line_that_leads_out_is_refused_with_its_number(tmp_path, line):
    root = write_voc(tmp_path / "farm", {"a": CAT}, {"train": [], "test": ["a"]})
    with pytest.raises(
        ValueError, match=r"train\.txt has 1 line that lead.*nothing was loaded"
    ) as caught:
        loaded(root, ["a", "", line])
    assert f"train.txt:3: {line!r}" in str(caught.value)


def test_a_list_that_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.txt")
    for read in (read_list, read_image_names):
        with pytest.raises(ValueError, match=r"train\.txt .*it is a named pipe"):
            read(tmp_path / "train.txt")


def test_a_name_that_ends_like_a_flag_comes_first(tmp_path):
    root = write_voc(tmp_path / "farm", {"a": CAT, "a 1": CAT}, {"train": [], "test": ["a"]})
    assert loaded(root, ["a 1", "a 0"]) == ["a 1.jpg", "a.jpg"]


def test_an_image_of_a_list_twice_is_found(tmp_path):
    root = write_voc(tmp_path / "farm", {"a": CAT}, {"train": [], "test": ["a"]})
    with pytest.raises(ValueError, match=r"an image file twice: 2\n.*a\.xml:1"):
        loaded(root, ["a", "a.jpg"])


def with_filename(root, name, said):
    file = root / "Annotations" / f"{name}.xml"
    write_xml(file, CAT)
    tag = f"<annotation><filename>{said}</filename>" if said is not None else "<annotation>"
    file.write_text(file.read_text().replace("<annotation>", tag))
    return file


@pytest.mark.parametrize("photo", ["a.jpg", "a.png"])
def test_of_several_images_the_annotation_names_its_own(tmp_path, photo):
    root = write_voc(tmp_path / "farm", {"a": CAT}, {"train": [], "test": ["a"]})
    write_image(root / "JPEGImages" / "a.png")
    for said in (photo, f"JPEGImages/{photo}", rf"C:\photos\{photo}"):
        with_filename(root, "a", said)
        assert loaded(root, ["a"]) == [photo]


@pytest.mark.parametrize("said", [None, "", "a", "a.bmp", "b.jpg", ".."])
def test_several_images_without_a_name_are_refused(tmp_path, said):
    root = write_voc(tmp_path / "farm", {"a": CAT, "b": CAT}, {"train": [], "test": ["b"]})
    write_image(root / "JPEGImages" / "a.png")
    file = with_filename(root, "a", said)
    with pytest.raises(ValueError, match=rf"{file}: a.jpg and a.png in .*nothing was loaded"):
        loaded(root, ["a"])


def test_one_image_needs_no_name_and_none_may_be_named(tmp_path):
    root = write_voc(tmp_path / "farm", {"a": CAT, "b": CAT}, {"train": [], "test": ["b"]})
    with_filename(root, "a", "b.jpg")  # copied from another, as some tools do
    assert loaded(root, ["a"]) == ["a.jpg"]
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "photo 7.png")
    with_filename(root, "a", "photo 7.png")
    assert loaded(root, ["a"]) == ["photo 7.png"]
    with_filename(root, "a", "photo 8.png")
    with pytest.raises(ValueError, match=r"a missing image file: 1\n.*there is no .*a\.jpg"):
        loaded(root, ["a"])


def test_classes_may_be_saved_by_windows_and_other_bytes_are_refused(tmp_path):
    root = write_voc(tmp_path / "farm", {"a": CAT}, {"train": [], "test": ["a"]})
    for encoding in ("utf-8-sig", "utf-16"):
        (root / "classes.txt").write_text("cat\r\ndog\r\n", encoding=encoding)
        assert load_detection("voc:farm", "test", root=tmp_path).classes == ("cat", "dog")
    (root / "classes.txt").write_bytes("über".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.txt is not text in UTF-8"):
        read_list(root / "classes.txt")
