"""Folders of images: what becomes which split, what names them, what is kept, what is refused."""

import hashlib
import json
import os
import time

import pytest
import torch
from PIL import Image

from lowbit import data
from lowbit.common.input_files.found_once import finding_once
from lowbit.data import decoding
from lowbit.data.image_sets import folder_manifest
from lowbit.data.image_sets.image_folder import Folder, folder_set, located, unlocated

CLASSES = ("cat", "dog", "eel")


def pixels(seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)


def write(image, path):
    """Write pixels (3, H, W) or (H, W) in the format of the path's suffix."""
    Image.fromarray(image.permute(1, 2, 0).numpy() if image.dim() == 3 else image.numpy()).save(
        path
    )


def make(root, name="pets", *, size=8, **parts):
    """Write parts=images a class, PNG files of noise that differ in size; return their pixels."""
    written = {}
    for part, count in parts.items():
        for c in CLASSES:
            folder = root / name / part / c
            folder.mkdir(parents=True)
            for i in range(count):
                path = folder / f"{i:02}.png"
                written[f"{part}/{c}/{i:02}.png"] = image = pixels(len(written), size)
                write(image, path)
    return written


@pytest.fixture
def pets(tmp_path):
    return make(tmp_path, train=20, test=4)


def test_splits_hold_the_pixels_and_labels_of_their_files(tmp_path, pets):
    splits = {s: data.load("folder:pets", s, root=tmp_path) for s in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [54, 6, 12]
    assert {split.classes for split in splits.values()} == {CLASSES}
    paths = sorted(p for p in pets if p.startswith("train")) + sorted(
        p for p in pets if p.startswith("test")
    )
    for split in splits.values():
        for image, label, i in zip(split.images, split.labels, split.ids, strict=True):
            assert torch.equal(image, pets[paths[i]])
            assert CLASSES[label] == paths[i].split("/")[1]
    assert torch.cat([s.ids for s in splits.values()]).unique().numel() == 72


def test_val_is_carved_from_each_class_by_the_hash_of_the_path(tmp_path, pets):
    val = data.load("folder:pets", "val", root=tmp_path)
    assert val.labels.bincount().tolist() == [2, 2, 2]
    names = [f"train/dog/{i:02}.png" for i in range(20)]
    names.sort(key=lambda n: hashlib.sha256(f"folder/0/{n}".encode()).digest())
    expected = {pets[n].numpy().tobytes() for n in names[:2]}
    assert {i.numpy().tobytes() for i in val.images[val.labels == 1]} == expected


def test_trainval_is_everything_in_train(tmp_path, pets):
    assert data.load("folder:pets", "trainval", root=tmp_path).ids.tolist() == list(range(60))


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        ({"train": 10, "val": 3}, {"train": 27, "val": 3, "test": 9}),
        ({"train": 10, "val": 3, "test": 2}, {"train": 30, "val": 9, "test": 6}),
    ],
)
def test_val_tests_unless_there_is_a_test_folder(tmp_path, parts, counts):
    made = make(tmp_path, **parts)
    assert data.locate("folder:pets", root=tmp_path).counts == counts
    test = data.load("folder:pets", "test", root=tmp_path)
    part = "test" if "test" in parts else "val"
    assert torch.equal(test.images[0], made[f"{part}/cat/00.png"])


def test_the_identity_is_the_hash_of_sorted_paths_and_sizes(tmp_path, pets):
    folder = tmp_path / "pets"
    digest = hashlib.sha256(b"folder 1\n")
    for path in sorted(pets):
        digest.update(f"{path} {(folder / path).stat().st_size}\n".encode())
    assert data.locate("folder:pets", root=tmp_path).split_sha256 == digest.hexdigest()
    (tmp_path / "pets").rename(tmp_path / "others")  # a name and a place are no part of it
    assert data.locate("folder:others", root=tmp_path).split_sha256 == digest.hexdigest()


@pytest.mark.parametrize("change", ["remove", "rename", "overwrite"])
@pytest.mark.parametrize("looks_at_all", [True, False])
def test_a_folder_that_changed_is_another_set(tmp_path, pets, monkeypatch, change, looks_at_all):
    if not looks_at_all:
        monkeypatch.setattr(folder_manifest, "_LOOK_AT_ALL", 10)
    before = data.locate("folder:pets", root=tmp_path).split_sha256
    first = data.load("folder:pets", "train", root=tmp_path)
    path = tmp_path / "pets/train/cat/07.png"
    if change == "remove":
        path.unlink()
    elif change == "rename":
        path.rename(path.with_name("7.png"))
    else:
        write(torch.zeros(3, 8, 8, dtype=torch.uint8), path)
    after = data.locate("folder:pets", root=tmp_path).split_sha256
    if change == "overwrite" and not looks_at_all:  # the documented blind spot of large sets
        assert after == before
        whole = folder_manifest.read_manifest(Folder("pets", tmp_path / "pets"), trust=False)
        assert whole.sha256 != before
        return
    assert after != before
    second = data.load("folder:pets", "train", root=tmp_path)
    assert first.images.shape != second.images.shape or not torch.equal(first.images, second.images)
    assert len(list((tmp_path / "pets/.lowbit").glob("images-*.npy"))) == 1  # the old one is gone


def test_a_job_looks_once_and_sees_one_state_of_a_folder(tmp_path, pets, monkeypatch):
    looks, look = [], folder_manifest.look
    monkeypatch.setattr(
        folder_manifest, "look", lambda root, paths: looks.append(root) or look(root, paths)
    )
    with finding_once():
        images = data.open_images("folder:pets", "train", root=tmp_path)
        (tmp_path / "pets/train/cat/07.png").unlink()
        monkeypatch.chdir(tmp_path)
        val = data.open_images("folder:pets", "val", root=".")  # the same folder
        source = data.view_source("folder:pets", "train", root=tmp_path, size=8, augmentation={})
        assert (len(images), len(val), len(source)) == (54, 6, 54)
        assert data.missing_images("folder:pets", "test", root=str(tmp_path)) is None
        assert len(looks) == 1
    assert len(data.open_images("folder:pets", "train", root=tmp_path)) == 53
    assert len(looks) == 2


def test_images_are_decoded_once(tmp_path, pets, monkeypatch):
    first = data.load("folder:pets", "train", root=tmp_path)
    monkeypatch.setattr(decoding, "decode", lambda path: pytest.fail("decoded again"))
    assert torch.equal(data.load("folder:pets", "train", root=tmp_path).images, first.images)


def test_an_image_newer_than_what_is_kept_is_decoded_again(tmp_path, pets):
    first = data.load("folder:pets", "trainval", root=tmp_path)
    path = tmp_path / "pets/train/cat/00.png"
    size = path.stat().st_size
    write(255 - pets["train/cat/00.png"], path)
    with path.open("ab") as file:  # the same size, so the same identity
        file.write(bytes(max(0, size - path.stat().st_size)))
    later = time.time_ns() + 10**9
    os.utime(path, ns=(later, later))
    again = data.load("folder:pets", "trainval", root=tmp_path)
    assert again.split_sha256 == first.split_sha256
    assert torch.equal(again.images[0], 255 - first.images[0])


def test_a_damaged_manifest_is_made_anew(tmp_path, pets):
    before = data.locate("folder:pets", root=tmp_path)
    kept = tmp_path / "pets/.lowbit/manifest.json"
    for content in ("", "{", json.dumps({"version": 0})):
        kept.write_text(content)
        assert data.locate("folder:pets", root=tmp_path).split_sha256 == before.split_sha256


def test_a_folder_that_cannot_be_written_to_still_loads(tmp_path, pets, caplog):
    (tmp_path / "pets/.lowbit").write_text("in the way")  # as root, permissions would not be
    assert len(data.load("folder:pets", "train", root=tmp_path)) == 54
    assert "could not be written" in caplog.text


def test_gray_transparent_and_rare_files_become_rgb(tmp_path):
    gray = torch.arange(64, dtype=torch.uint8).view(8, 8)
    write(gray, tmp_path / "gray.png")
    assert torch.equal(decoding.decode(tmp_path / "gray.png"), gray.expand(3, 8, 8))
    red = Image.new("RGBA", (8, 8), (200, 10, 20, 0))
    red.save(tmp_path / "clear.png")
    Image.new("RGB", (8, 8), (200, 10, 20)).save(tmp_path / "plain.bmp")
    for name in ("clear.png", "plain.bmp"):
        assert decoding.decode(tmp_path / name)[:, 3, 3].tolist() == [200, 10, 20]
    write((torch.arange(64).view(8, 8) * 1024).to(torch.uint16), tmp_path / "deep.png")
    expected = (torch.arange(64).view(8, 8) * 1024 / 257).round().to(torch.uint8)
    assert torch.equal(decoding.decode(tmp_path / "deep.png")[0], expected)


@pytest.mark.parametrize("content", [b"", b"no image at all", "cut short"])
def test_a_damaged_file_is_named(tmp_path, pets, content):
    path = tmp_path / "pets/train/dog/11.png"
    path.write_bytes(path.read_bytes()[:-60] if content == "cut short" else content)
    with pytest.raises(
        ValueError, match=r"dog/11.png cannot be decoded \(.+\); nothing was loaded"
    ):
        data.load("folder:pets", "test", root=tmp_path)
    problems = list(Folder("folder:pets", tmp_path / "pets").damaged())
    assert len(problems) == 72 and sum(p is not None for p in problems) == 1


def test_a_file_of_another_size_is_named(tmp_path, pets):
    write(pixels(0, 9), tmp_path / "pets/train/dog/11.png")
    with pytest.raises(ValueError, match=r"dog/11.png has 9 x 9 pixels .* have 8 x 8"):
        data.load("folder:pets", "train", root=tmp_path)


def test_large_images_are_not_loaded_whole(tmp_path):
    make(tmp_path, size=70, train=2, test=1)
    assert data.locate("folder:pets", root=tmp_path).size is None
    with pytest.raises(ValueError, match="Pretraining streams them"):
        data.load("folder:pets", "train", root=tmp_path)


def test_a_folder_is_known_by_name_before_any_root_is():
    spec = data.image_set("folder:nowhere")
    assert spec.split_sha256 is None and data.normalization("folder:nowhere")[0][0] == 0.485
    with pytest.raises(FileNotFoundError, match=r"nowhere has none of the folders .* data_root"):
        data.locate("folder:nowhere", root="/nonexistent")


@pytest.mark.parametrize(
    "name", ["folder:", "folder:..", "folder:a/b", "folder:/etc", "folder:a\\b", "folder:a\0b"]
)
def test_a_path_is_no_name(name):
    with pytest.raises(ValueError, match="does not name a folder of the data root"):
        folder_set(name)


def test_what_is_wrong_with_a_layout_is_said(tmp_path, pets):
    folder = tmp_path / "pets"
    (folder / "test/eel").rename(folder / "test/ell")
    with pytest.raises(ValueError, match=r"differ in 2 classes \(eel, ell\)"):
        data.locate("folder:pets", root=tmp_path)
    (folder / "test/ell").rename(folder / "test/eel")
    for path in list((folder / "train/cat").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"train/cat has 1 images directly in it, but 2"):
        data.locate("folder:pets", root=tmp_path)
    (folder / "test").rename(folder / "testing")
    with pytest.raises(FileNotFoundError, match="has train of the folders"):
        data.locate("folder:pets", root=tmp_path)


def test_imagenet_must_have_its_published_counts(tmp_path, pets):
    (tmp_path / "pets").rename(tmp_path / "imagenet")
    with pytest.raises(ValueError, match=r"30.*3 classes, but .*1271167.* of 1000 are published"):
        data.locate("imagenet", root=tmp_path)
    spec = data.image_set("imagenet")
    assert sum(spec.counts.values()) == 1_281_167 + 50_000
    small = unlocated(
        "small",
        "imagenet",
        counts={"train": 51, "val": 9, "test": 12},
        num_classes=3,
        val_per_class=3,
    )
    assert located(small, tmp_path).split_sha256 is not None
