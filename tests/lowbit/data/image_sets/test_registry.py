"""Image sets: pinned splits that are disjoint, stratified and refused when they were changed."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lowbit import data
from lowbit.data.image_sets import catalog, registry, spec

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def digits():
    return {split: data.load("digits", split) for split in (*SPLITS, "trainval")}


def test_the_digits_have_the_pinned_sizes_and_types(digits):
    assert [len(digits[split]) for split in SPLITS] == [1077, 180, 540]
    for split in digits.values():
        assert split.images.dtype == torch.uint8 and split.images.shape[1:] == (3, 32, 32)
        assert split.labels.dtype == split.ids.dtype == torch.int64
        assert split.classes == tuple("0123456789")


def test_splits_are_disjoint_and_cover_the_set(digits):
    ids = torch.cat([digits[split].ids for split in SPLITS])
    assert sorted(ids.tolist()) == list(range(1797))


def test_every_class_has_its_share_of_every_split(digits):
    everything = torch.from_numpy(load_digits().target).bincount()
    for split, share in zip(SPLITS, (0.6, 0.1, 0.3), strict=True):
        counts = digits[split].labels.bincount(minlength=10)
        assert ((counts - share * everything).abs() < 1.5).all()


def test_trainval_is_train_and_val_in_the_order_of_the_ids(digits):
    joined = torch.cat([digits["train"].ids, digits["val"].ids]).sort().values
    assert torch.equal(digits["trainval"].ids, joined)
    row = int((joined == digits["val"].ids[3]).nonzero())
    assert torch.equal(digits["trainval"].images[row], digits["val"].images[3])
    assert digits["trainval"].labels[row] == digits["val"].labels[3]


def test_digits_are_scikit_learns_enlarged_bilinearly(digits):
    """Closed form at a pixel: output (r, c) lies at input ((r + .5) / 4 - .5, (c + .5) / 4 - .5)."""
    split = digits["test"]
    small = load_digits().images[int(split.ids[7])] * 255 / 16  # (8, 8)
    r, c = 13, 18  # input row 2.875, column 4.125
    rows, columns = np.array([0.125, 0.875]), np.array([0.875, 0.125])
    expected = rows @ small[2:4, 4:6] @ columns
    assert abs(float(split.images[7, 0, r, c]) - expected) <= 0.5
    assert torch.equal(split.images[7, 0], split.images[7, 2])
    assert int(split.labels[7]) == load_digits().target[int(split.ids[7])]


def test_normalization_is_the_training_images_own(digits):
    mean, std = data.normalization("digits")
    train = digits["train"].images.float() / 255
    assert mean == pytest.approx([float(train.mean())] * 3, abs=1e-4)
    assert std == pytest.approx([float(train.std())] * 3, abs=1e-4)


def test_the_split_hash_is_the_files_and_the_same_for_every_split(digits):
    content = (spec.SPLITS_DIR / "digits.json").read_bytes()
    assert {split.split_sha256 for split in digits.values()} == {
        hashlib.sha256(content).hexdigest()
    }


@pytest.fixture
def other_split_file(tmp_path, monkeypatch):
    """Let a test replace the digits' split file; returns (read pinned, write changed)."""
    pinned = json.loads((spec.SPLITS_DIR / "digits.json").read_text())
    monkeypatch.setattr(spec, "SPLITS_DIR", tmp_path)
    return pinned, lambda content: (tmp_path / "digits.json").write_text(json.dumps(content))


def test_a_split_file_that_was_tampered_with_is_refused(other_split_file):
    pinned, write = other_split_file
    pinned["train"].append(pinned["test"].pop())
    write(pinned)
    with pytest.raises(ValueError, match=r"SHA-256 .* nothing was loaded.* Restore the file"):
        data.load("digits", "train")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda p: p["train"].pop(), "'train': 1076"),
        (lambda p: p["train"].__setitem__(0, p["test"][0]), "an image in two splits"),
        (lambda p: p["train"].__setitem__(0, 1797), "one that does not exist"),
    ],
)
def test_a_registered_split_that_does_not_fit_the_set_is_refused(
    other_split_file, monkeypatch, change, problem
):
    """Even when the hash agrees: counts, overlaps and ids are checked against the images."""
    pinned, write = other_split_file
    change(pinned)
    write(pinned)
    digits = data.image_set("digits")
    found = hashlib.sha256((spec.SPLITS_DIR / "digits.json").read_bytes()).hexdigest()
    changed = replace(digits, split_sha256=found)
    monkeypatch.setattr(registry, "image_set", lambda name: changed)
    with pytest.raises(ValueError, match=problem):
        data.load("digits", "train")


def test_a_set_with_a_class_too_few_is_refused(monkeypatch):
    digits = data.image_set("digits")

    def read(root):
        images, labels = digits.read(root)
        return images, labels.clamp(max=8)

    changed = replace(digits, read=read)
    monkeypatch.setattr(registry, "image_set", lambda name: changed)
    with pytest.raises(ValueError, match="but 10 are specified"):
        data.load("digits", "val")


def test_other_pixels_than_the_pinned_ones_are_refused(monkeypatch):
    raw = load_digits()
    raw.images[0, 0, 0] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: raw)
    catalog._enlarged_digits.cache_clear()
    with pytest.raises(ValueError, match="scikit-learn's digits have SHA-256"):
        data.load("digits", "train")


def _write_cifar10(root, labels_of):
    """Write CIFAR-10's layout with one pixel value an image: its index modulo 256."""
    import pickle

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for batch, name in enumerate(names):
        index = np.arange(10_000) + 10_000 * batch
        rows = np.broadcast_to((index % 256).astype(np.uint8)[:, None], (10_000, 3072))
        content = {"data": rows, "labels": labels_of(index).tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def test_cifar_val_is_a_stratified_tenth_of_train_by_the_pinned_rule(tmp_path, monkeypatch):
    _write_cifar10(tmp_path, lambda index: index % 10)
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    val = data.load("cifar10", "val", root=tmp_path)
    assert val.labels.bincount().tolist() == [500] * 10
    assert torch.equal(val.images[:, 0, 0, 0].long(), val.ids % 256)
    # The rule written out for class 3: the 500 members whose hashes are least.
    members = range(3, 50_000, 10)
    ordered = sorted(members, key=lambda i: hashlib.sha256(f"cifar10/0/{i}".encode()).digest())
    assert set(val.ids[val.labels == 3].tolist()) == set(ordered[:500])
    assert val.classes[3] == "cat"


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nothing was loaded. Download it with .*download=True"
    ):
        data.load("cifar100", "train", root=tmp_path)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'cifar100'"):
        data.load("cifar-100", "train")
    with pytest.raises(ValueError, match="has no split 'valid'"):
        data.load("digits", "valid")
    assert data.list_datasets() == sorted(data.list_datasets())
    assert {"digits", "cifar10", "flowers102", "imagenet"} <= set(data.list_datasets())
