"""Small copies of the published sets as they lie on disk: every image has its class's one gray."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from lowbit.data.image_sets import catalog, spec


def gray(label):
    """Return the value of every pixel of a class."""
    return 30 + 60 * label


def _save(path, label, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, gray(label)).save(path, format="JPEG")


def _flowers102(root, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    base, labels, parts = root / "flowers-102", [], {"trnid": [], "valid": [], "tstid": []}
    # Official lists are not sorted, and their numbers start at 1, as the labels do.
    for part, per_class in (("tstid", (4, 2, 3)), ("valid", (2, 2, 2)), ("trnid", (2, 2, 2))):
        for label, count in enumerate(per_class):
            for _ in range(count):
                labels.append(label + 1)
                parts[part].insert(0, len(labels))
                _save(base / f"jpg/image_{len(labels):05d}.jpg", label, size=(30, 50))
    savemat(base / "imagelabels.mat", {"labels": np.array([labels])})
    savemat(base / "setid.mat", {name: np.array([ids]) for name, ids in parts.items()})
    (base / "102flowers.tgz").write_bytes(b"flowers")
    files = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    md5 = {k: hashlib.md5((base / file).read_bytes()).hexdigest() for k, file in files.items()}
    monkeypatch.setattr(Flowers102, "_file_dict", {k: (files[k], md5[k]) for k in files})
    monkeypatch.setattr(Flowers102, "classes", ["rose", "lotus", "daffodil"])
    rule = {"train": ["train", "val"], "test": ["test"], "val_per_class": 1, "images": 21}
    return rule, (9, 3, 9)


def _food101(root, _):
    base, lists = root / "food-101", {"train": {}, "test": {}}
    for label, name in enumerate(("apple_pie", "ramen", "waffles")):
        for part, numbers in (("train", range(7, 3, -1)), ("test", range(3))):
            lists[part][name] = [f"{name}/{number}" for number in numbers]
            for number in numbers:
                _save(base / f"images/{name}/{number}.jpg", label)
    (base / "meta").mkdir()
    for part, names in lists.items():
        (base / f"meta/{part}.json").write_text(json.dumps(dict(reversed(names.items()))))
    rule = {"train": ["train"], "test": ["test"], "val_per_class": 1, "images": 21}
    return rule, (9, 3, 9)


def _pets(root, _):
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    # Cats have capitals; the ids of the breeds are not in the order of the names.
    for part, numbers in (("trainval", (1, 2, 3, 10)), ("test", (4, 5))):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog", "Bengal")):
            for number in numbers:
                _save(base / f"images/{name}_{number}.jpg", label)
                lines.append(f"{name}_{number} {label + 1} {1 + (name[0] == 'a')} 1")
        (base / f"annotations/{part}.txt").write_text("\n".join(lines))
    (base / "images/Abyssinian_100.mat").write_bytes(b"not an image, as published")
    rule = {"train": ["trainval"], "test": ["test"], "val_per_class": 1, "images": 18}
    return rule, (9, 3, 6)


def _dtd(root, _):
    base = root / "dtd/dtd"
    (base / "labels").mkdir(parents=True)
    for part, numbers in (("train", (1, 2)), ("val", (3, 4)), ("test", (5, 6, 7))):
        lines = []
        for label, name in enumerate(("banded", "dotted", "woven")):
            for number in numbers:
                _save(base / f"images/{name}/{name}_{number:04d}.jpg", label)
                lines.append(f"{name}/{name}_{number:04d}.jpg")
        (base / f"labels/{part}1.txt").write_text("\n".join(lines))
        (base / f"labels/{part}2.txt").write_text("\n".join(reversed(lines)))
    rule = {"train": ["train", "val"], "test": ["test"], "val_per_class": 1, "images": 21}
    return rule, (9, 3, 9)


def _caltech101(root, _):
    base = root / "caltech101"
    for label, (name, count) in enumerate((("Faces", 9), ("Faces_easy", 7), ("accordion", 8))):
        for number in range(1, count + 1):
            _save(base / f"101_ObjectCategories/{name}/image_{number:04d}.jpg", label)
    _save(base / "101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", 0)
    (base / "Annotations/Faces_2").mkdir(parents=True)
    rule = {"train_per_class": 4, "test_per_class": 2, "val_per_class": 1, "images": 24}
    return rule, (9, 3, 6)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Return a function that writes a small copy of a set under `tmp_path`, and expects it there."""
    splits, small, original = tmp_path / "splits", {}, catalog._photographs
    splits.mkdir()
    monkeypatch.setattr(spec, "SPLITS_DIR", splits)
    monkeypatch.setattr(
        catalog,
        "_photographs",
        lambda listing, **facts: original(listing, **{**facts, **small.get(facts["name"], {})}),
    )

    def write(name):
        rule, counts = globals()[f"_{name}"](tmp_path, monkeypatch)
        rule["salt"] = f"{name}/0"
        text = json.dumps({"version": 1, "rule": rule})
        (splits / f"{name}.json").write_text(text)
        small[name] = {
            "num_classes": 3,
            "counts": dict(zip(("train", "val", "test"), counts, strict=True)),
            "split_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        return tmp_path

    return write
