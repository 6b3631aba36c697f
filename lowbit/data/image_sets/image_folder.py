"""Folders of images as image sets: `folder:NAME` is `<root>/NAME/{train,val|test}/<class>/*.jpg`.

The test images are those of test/, or of val/ if there is no test/. The val images are those of
val/ if all three exist; else a tenth of each class of train/ is taken, ordered by the SHA-256 of
the file's name, which no library's random numbers can change.

The identity of the splits (`split_sha256`) is the SHA-256 over the relative paths and sizes of all
files, see `lowbit.data.image_sets.folder_manifest`.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowbit.common.input_files.file_names import is_name
from lowbit.common.text import brief
from lowbit.data import sidecar_files
from lowbit.data.decoding import kept, problems
from lowbit.data.image_sets.folder_manifest import Manifest, Names, read_manifest
from lowbit.data.image_sets.spec import (
    FOLDER,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SPLITS,
    Files,
    ImageSet,
    check_splits,
    choose,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
VAL_SHARE = 0.1  # of a class of train/, when val is taken from it


class Folder:
    """An image folder on disk.

    Args:
        name: used in messages.
        path: the folder that contains train/.
        val_per_class: images taken from each class of train/; None for a tenth of the class.

    Attributes:
        parts: folder of each split: {"train": "train", "test": "val"}, ...
        classes: the names, sorted; a label is an index into them.

    Raises:
        FileNotFoundError: train/, or both test/ and val/, are missing.
        ValueError: the folders differ in their classes, or there are fewer than two.
    """

    frames: int | None = None  # of a video; an image has none

    def __init__(self, name: str, path: Path, *, val_per_class: int | None = None) -> None:
        self.name, self.path, self._val_per_class = name, path, val_per_class
        there = [part for part in SPLITS if (path / part).is_dir()]
        if "train" not in there or len(there) < 2:
            raise FileNotFoundError(
                f"{name} is not complete: {path.resolve()} has {' and '.join(there) or 'none'} of "
                "the folders train, val and test; nothing was loaded. Put images into "
                f"{path}/train/CLASS/ and {path}/test/CLASS/ (or val/), or point $LOWBIT_DATA (or "
                "data_root) at the folder that has them."
            )
        if len(there) == 3:
            self.parts = {split: split for split in SPLITS}
        else:
            self.parts = {"train": "train", "test": there[1]}
        self.classes = self._find_classes()

    def _find_classes(self) -> tuple[str, ...]:
        found = {part: _subfolders(self.path / part) for part in self.parts.values()}
        for part, classes in found.items():
            differing = sorted(set(classes) ^ set(found["train"]))
            if differing:
                raise ValueError(
                    f"{self.name}: {self.path / 'train'} and {self.path / part} differ in "
                    f"{len(differing)} classes ({', '.join(differing[:3])}); nothing was loaded. "
                    "Give both the same class folders."
                )
        if len(found["train"]) < 2:
            raise ValueError(
                f"{self.name}: {self.path / 'train'} has {len(found['train'])} class folders, but at "
                "least two are needed; nothing was loaded. Put the images of each class into its "
                "own folder."
            )
        return tuple(found["train"])

    @cached_property
    def names(self) -> Names:
        """File names by split, class by class, sorted."""
        return {
            split: [self._images(part, name) for name in self.classes]
            for split, part in self.parts.items()
        }

    def _images(self, part: str, name: str) -> list[str]:
        folder = self.path / part / name
        images = sorted(n for n in os.listdir(folder) if n.lower().endswith(EXTENSIONS))
        least = 2 if part == "train" and "val" not in self.parts else 1
        if len(images) < least:
            raise ValueError(
                f"{self.name}: {folder} has {len(images)} images directly in it, but {least} or "
                f"more are needed; nothing was loaded. Add images ({', '.join(EXTENSIONS)}), or "
                "remove the class from every folder."
            )
        return images

    @cached_property
    def paths(self) -> list[str]:
        """Relative paths of all files; an id is an index into them."""
        return [
            f"{self.parts[split]}/{name}/{image}"
            for split, classes in self.names.items()
            for name, images in zip(self.classes, classes, strict=True)
            for image in images
        ]

    @property
    def contents(self) -> list[str]:
        """Relative paths of the files that define the set's identity."""
        return self.paths

    @property
    def watched(self) -> list[str]:
        """Paths whose modification means that the set has changed: the class folders."""
        return [f"{part}/{name}" for part in self.parts.values() for name in self.classes]

    @cached_property
    def labels(self) -> Tensor:
        """The class of every file, int64."""
        counts = torch.tensor([len(images) for part in self.names.values() for images in part])
        return torch.arange(len(self.classes)).repeat(len(self.names)).repeat_interleave(counts)

    @cached_property
    def manifest(self) -> Manifest:
        """The folder's manifest, stored in it and rebuilt after changes."""
        return read_manifest(self)

    @property
    def size(self) -> int | None:
        """Side of the images, pixels; None if they are too large or of too many sizes."""
        return self.manifest.size

    @property
    def split_sha256(self) -> str:
        """The identity of the splits."""
        return self.manifest.sha256

    def counts(self) -> dict[str, int]:
        """Count the images of each split."""
        counts = {split: sum(classes) for split, classes in self.manifest.counts.items()}
        if "val" not in counts:
            counts["val"] = sum(map(self._carved, self.manifest.counts["train"]))
            counts["train"] -= counts["val"]
        return {split: counts[split] for split in SPLITS}

    def ids(self) -> dict[str, Tensor]:
        """Return the ids of each split, in their order."""
        parts = [sum(map(len, classes)) for classes in self.names.values()]
        ids = dict(zip(self.parts, torch.arange(len(self.paths)).split(parts), strict=True))
        if "val" not in ids:
            carved = torch.zeros(parts[0], dtype=torch.bool)
            for members in self._train_by_class():
                members.sort(key=lambda i: hashlib.sha256(self._salted(i)).digest())
                carved[members[: self._carved(len(members))]] = True
            ids["train"], ids["val"] = ids["train"][~carved], ids["train"][carved]
        return ids

    def _salted(self, index: int) -> bytes:
        return os.fsencode(f"folder/0/{self.paths[index]}")

    def _train_by_class(self) -> Iterator[list[int]]:
        start = 0
        for images in self.names["train"]:
            yield list(range(start, start + len(images)))
            start += len(images)

    def _carved(self, count: int) -> int:
        return self._val_per_class or max(1, round(VAL_SHARE * count))

    def images(self) -> Tensor:
        """Return all images, uint8 (N, 3, size, size), decoded once and cached next to them."""
        manifest = self.manifest
        file = self.path / sidecar_files.FOLDER / f"images-{manifest.sha256[:16]}.npy"
        for old in set(file.parent.glob("images-*.npy")) - {file}:
            old.unlink(missing_ok=True)
        files = [f"{self.path}/{path}" for path in self.paths]
        return kept(file, files, manifest.size, newest_ns=manifest.newest_ns)

    def files(self, split: str) -> Files:
        """Return the files of a split that `load` accepts."""
        paths = np.array([os.fsencode(path) for path in self.paths])
        return Files(self.path, paths[choose(self.ids(), split).numpy()])

    def damaged(self) -> Iterator[str | None]:
        """Decode every file; yield for each its problem or None."""
        return problems([f"{self.path}/{path}" for path in self.paths])


def folder_set(name: str) -> ImageSet:
    """Specify `folder:NAME` without reading the disk."""
    folder = name.removeprefix(FOLDER)
    if not is_name(folder):
        raise ValueError(
            f"{brief(name)} does not name a folder of the data root; nothing was loaded. Write "
            f"{FOLDER}NAME for <root>/NAME, without a path; data_root (or $LOWBIT_DATA) is the root."
        )
    return unlocated(name, folder)


def unlocated(
    name: str,
    folder: str,
    *,
    counts: dict[str, int] | None = None,
    num_classes: int | None = None,
    val_per_class: int | None = None,
) -> ImageSet:
    """Specify the set in `<root>/<folder>`; `counts` and `num_classes`, if given, are checked."""
    return ImageSet(
        name=name,
        num_classes=num_classes,
        counts=counts,
        size=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        split_sha256=None,
        folder=lambda root: Folder(name, root / folder, val_per_class=val_per_class),
    )


def located(spec: ImageSet, root: Path) -> ImageSet:
    """Return the specification of a set of files found under `root`."""
    folder = spec.folder(root)
    counts = folder.counts()
    if spec.counts not in (None, counts) or spec.num_classes not in (None, len(folder.classes)):
        raise ValueError(
            f"{spec.name} in {folder.path.resolve()} has {counts} images of {len(folder.classes)} "
            f"classes, but {spec.counts} of {spec.num_classes} are published; nothing was loaded. "
            "Restore the missing files from the archives and remove what does not belong there."
        )
    if spec.pin != "files":
        check_splits(spec, folder.ids(), folder.labels)
    return replace(
        spec,
        num_classes=len(folder.classes),
        counts=counts,
        size=folder.size,
        split_sha256=folder.split_sha256,
        folder=lambda _: folder,
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
