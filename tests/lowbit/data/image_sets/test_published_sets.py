"""Published sets of photographs, read through torchvision's own classes from small copies."""

import hashlib
import inspect

import pytest
import torch
from torchvision import datasets

from lowbit import data
from lowbit.data import Center
from lowbit.data.image_sets import archives
from lowbit.data.image_sets.spec import SPLITS_DIR

NAMES = ("flowers102", "food101", "pets", "dtd", "caltech101")
SPLITS = ("train", "val", "test")
PUBLISHED = {  # SPEC A.9: classes, images to train on, images to test on
    "cifar10": (10, 50_000, 10_000),
    "cifar100": (100, 50_000, 10_000),
    "flowers102": (102, 2_040, 6_149),
    "food101": (101, 75_750, 25_250),
    "pets": (37, 3_680, 3_669),
    "dtd": (47, 3_760, 1_880),
    "caltech101": (101, 2_020, 1_010),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_specifications_have_the_published_counts(name):
    spec = data.image_set(name)
    counts = spec.counts
    assert (spec.num_classes, counts["train"] + counts["val"], counts["test"]) == PUBLISHED[name]
    content = (SPLITS_DIR / f"{name}.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == spec.split_sha256
    assert spec.pin == ("drawn" if name == "caltech101" else "official")
    unequal = name in ("flowers102", "pets", "caltech101")
    assert spec.metrics == (("top1", "mean_per_class") if unequal else ("top1",))


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_its_own_class_and_one_split(publish, name):
    root = publish(name)
    ids = []
    for split in SPLITS:
        images = data.open_images(name, split, root=root)
        assert len(images) == data.image_set(name).counts[split]
        assert images.labels.unique().tolist() == [0, 1, 2]
        assert images.ids.equal(images.ids.sort().values)
        ids += images.ids.tolist()
        view = Center(size=24, resize=24)
        (x,) = images.batches(view, batch_size=99, device="cpu", workers=0)
        mean, std = (torch.tensor(c) for c in data.normalization(name))
        found = (x.mean(dim=(2, 3)) * std + mean) * 255  # (N, 3)
        wanted = (30.0 + 60 * images.labels)[:, None].expand(-1, 3)
        assert torch.allclose(found, wanted, atol=2)
    assert len(set(ids)) == len(ids)
    joined = data.open_images(name, "trainval", root=root)
    assert len(joined) == sum(data.image_set(name).counts[split] for split in ("train", "val"))
    assert joined.split_sha256 == data.image_set(name).split_sha256


@pytest.mark.parametrize(
    ("name", "kind", "test"),
    [
        ("flowers102", datasets.Flowers102, {"split": "test"}),
        ("food101", datasets.Food101, {"split": "test"}),
        ("pets", datasets.OxfordIIITPet, {"split": "test"}),
        ("dtd", datasets.DTD, {"split": "test", "partition": 1}),
    ],
)
def test_the_official_test_images_are_torchvisions(publish, name, kind, test):
    root = publish(name)
    official = kind(root, **test)
    files = {str(path) for path in getattr(official, "_image_files", None) or official._images}
    folder = data.locate(name, root=root).folder(None)
    listed = folder.files("test")
    assert {listed[i] for i in range(len(listed))} == files
    assert folder.classes == tuple(official.classes)


def test_val_is_drawn_out_of_each_class_by_the_hash_of_its_files_paths(publish):
    root = publish("dtd")
    folder = data.locate("dtd", root=root).folder(None)
    val = [folder.paths[i] for i in folder.ids()["val"]]
    for name in ("banded", "dotted", "woven"):
        official = [f"images/{name}/{name}_{number:04d}.jpg" for number in (1, 2, 3, 4)]
        drawn = min(official, key=lambda path: hashlib.sha256(f"dtd/0/{path}".encode()).digest())
        assert drawn in val


def test_caltech_draws_test_and_train_and_leaves_the_background_and_the_rest(publish):
    root = publish("caltech101")
    folder = data.locate("caltech101", root=root).folder(None)
    assert folder.classes == ("Faces", "Faces_easy", "accordion")
    assert len(folder.paths) == 24 and not any("BACKGROUND" in path for path in folder.paths)
    every = [f"101_ObjectCategories/Faces/image_{number:04d}.jpg" for number in range(1, 10)]
    every.sort(key=lambda path: hashlib.sha256(f"caltech101/0/{path}".encode()).digest())
    by_split = {s: {folder.paths[i] for i in ids} & set(every) for s, ids in folder.ids().items()}
    assert by_split == {"test": set(every[:2]), "val": {every[2]}, "train": set(every[3:6])}


@pytest.mark.parametrize("name", NAMES)
def test_a_set_that_is_not_there_leaves_nothing_behind(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nothing was loaded. .*prepare {name} --download"):
        data.open_images(name, "train", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_named(publish):
    root = publish("pets")
    (root / "oxford-iiit-pet/images/Bengal_2.jpg").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 listed files \(images/Bengal_2.jpg\)"):
        data.locate("pets", root=root)


def test_a_list_of_another_length_or_that_cannot_be_read_is_refused(publish):
    root = publish("dtd")
    path = root / "dtd/dtd/labels/train1.txt"
    content = path.read_text()
    path.write_text("\n".join(content.splitlines()[1:]))
    with pytest.raises(ValueError, match="is incomplete and lists 20 files where 21 are published"):
        data.locate("dtd", root=root)
    path.write_text("banded")
    with pytest.raises(ValueError, match=r"lists of dtd .* cannot be read"):
        data.locate("dtd", root=root)


def test_lists_that_moved_images_between_the_parts_are_refused(publish):
    root = publish("food101")
    for part in ("train", "test"):
        (root / f"food-101/meta/{part}.json").rename(root / f"food-101/meta/{part}_")
    (root / "food-101/meta/train_").rename(root / "food-101/meta/test.json")
    (root / "food-101/meta/test_").rename(root / "food-101/meta/train.json")
    with pytest.raises(ValueError, match=r"but .* are published; nothing was loaded"):
        data.locate("food101", root=root)


def test_views_for_pretraining_come_from_published_files_too(publish):
    root = publish("dtd")
    source = data.view_source("dtd", "trainval", root=root, size=16, augmentation={})
    (batch,) = source.epoch(torch.arange(12)[None], epoch=0)
    assert len(source) == 12 and batch.view().shape == (12, 3, 16, 16)


def test_archives_are_those_that_torchvision_gets(tmp_path):
    source = inspect.getsource(datasets.Caltech101.download)
    (caltech,) = archives.archives("caltech101", tmp_path)
    assert caltech.url in source and caltech.md5 in source
    for name in PUBLISHED:
        for archive in archives.archives(name, tmp_path):
            assert archive.url.startswith("http") and len(archive.md5) == 32
            assert archive.path.name == archive.url.rpartition("/")[2]
    assert archives.archives("digits", tmp_path) == []
