"""Specification and splits of an image set, checked against pinned files."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from fvcore.common.registry import Registry
from torch import Tensor

SPLITS = ("train", "val", "test")
SPLITS_DIR = Path(__file__).parent / "splits"
ROOT_VARIABLE = "LOWBIT_DATA"
FOLDER = "folder:"
FRAMES = "frames:"

Pin = Literal["ids", "official", "drawn", "files"]
Triple = tuple[float, float, float]

# ImageNet's constants, customary for photographs.
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)

IMAGE_SETS = Registry("IMAGE_SETS")
IMAGE_SETS.__doc__ = """
Registry of image sets. Register a function without arguments that returns an `ImageSet`; the
function's name is the data set's name in recipes. Put its pinned splits in
`lowbit/data/image_sets/splits/<name>.json`: `{"version": 1, "classes": [names], ...}` with either the ids themselves,
`"train": [ids], "val": [ids], "test": [ids]`, or a `"rule"` as `_ids_by_rule` reads it; of a set
that stays in its files, as `lowbit.data.image_sets.published_sets` reads it, without the classes.
"""


@dataclass(frozen=True)
class Files:
    """The files of a split: paths relative to `folder`, in the order of their ids.

    Paths are bytes in one array, so that worker processes share its memory.
    """

    folder: Path
    paths: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(bytes(self.paths[index])))


class FilesOnDisk(Protocol):
    """An image set whose images stay in their files under a root.

    Attributes:
        path: its folder.
        classes: the names; a label is an index into them.
        labels: the class of every sample, int64; an id is an index into them.
        contents: paths of all files, relative to `path`.
        size: side of the images, pixels; None if they are too large, or of too many sizes, to be
            held in memory.
        split_sha256: the identity of the splits.
    """

    path: Path
    classes: tuple[str, ...]
    labels: Tensor
    contents: list[str]
    size: int | None
    split_sha256: str

    def counts(self) -> dict[str, int]:
        """Count the images of each split."""

    def ids(self) -> dict[str, Tensor]:
        """Return the ids of each split."""

    def files(self, split: str) -> Files:
        """Return the files of a split that `load` accepts."""

    def images(self) -> Tensor:
        """Return all images, uint8 (N, 3, size, size), if they have one size."""

    def damaged(self) -> Iterator[str | None]:
        """Decode every file; yield for each its problem or None."""


@dataclass(frozen=True)
class ImageSet:
    """Specify an image set.

    `read(root)` returns every image as uint8 (N, 3, H, W) and every label as int64 (N,); an image's
    id is its index. `counts` are the images per split that a load must find. `mean` and
    `std` are per channel, in units of 0..1. `size` is the side of the images, in pixels. `metrics`
    are those its papers report. `pin` is what `split_sha256` covers:

        ids: the split file, which has the ids themselves.
        official: the split file, which names the publisher's parts; their lists are in archives
            with MD5s known to torchvision, and a salted hash draws val from train.
        drawn: the split file, with a salt that orders the files of a class by their names' hashes.
        files: the paths and sizes of the files found; there is no split file.

    A set of image files has `folder(root)` in place of `read`. Fields that depend on a user's files (of
    `num_classes`, `counts`, `size` and `split_sha256`) is None until `locate` fills it in; a `size`
    of None after that means images too large, or of too many sizes, to hold in memory. `frames` is the
    number of frames sampled from a video; None: the samples are images.
    """

    name: str
    num_classes: int | None
    counts: dict[str, int] | None
    size: int | None
    mean: Triple
    std: Triple
    split_sha256: str | None
    pin: Pin = "files"
    metrics: tuple[str, ...] = ("top1",)
    read: Callable[[Path], tuple[Tensor, Tensor]] | None = None
    folder: Callable[[Path], FilesOnDisk] | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Split:
    """Hold one split in memory: images uint8 (N, 3, H, W), labels int64 (N,), ids int64 (N,)."""

    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    split_sha256: str

    def __len__(self) -> int:
        return len(self.labels)


def resolve_root(root: str | os.PathLike | None) -> Path:
    """Return the folder of the sets: the one given, else `$LOWBIT_DATA`, else `./datasets`."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or "datasets")


def check_split(name: str, split: str) -> None:
    """Refuse an unknown split name."""
    if split not in (*SPLITS, "trainval"):
        raise ValueError(
            f"{name} has no split {split!r}; nothing was loaded. "
            "Use one of train, val, test, trainval."
        )


def choose(ids: dict[str, Tensor], split: str) -> Tensor:
    """Return the ids of a split in their order; "trainval" is train and val."""
    wanted = torch.cat([ids["train"], ids["val"]]) if split == "trainval" else ids[split]
    return wanted.sort().values


def read_pinned(spec: ImageSet) -> dict:
    """Return a set's split file, refusing any but the pinned one."""
    path = SPLITS_DIR / f"{spec.name}.json"
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != spec.split_sha256:
        raise ValueError(
            f"the split file {path} of {spec.name} has SHA-256 {found[:12]}..., "
            f"{spec.split_sha256[:12]}... is pinned; nothing was loaded. "
            "Restore the file from the repository, or register a changed split under a new name."
        )
    return json.loads(content)


def check_splits(spec: ImageSet, ids: dict[str, Tensor], labels: Tensor) -> None:
    """Refuse splits that overlap, lack a class, or differ from the specified counts."""
    counts = {split: len(ids[split]) for split in SPLITS}
    every = torch.cat(list(ids.values()))
    problem = None
    if counts != spec.counts:
        problem = f"has {counts} images per split but {spec.counts} are specified"
    elif len(every.unique()) != len(every) or int(every.max()) >= len(labels):
        problem = "has an image in two splits, or one that does not exist"
    else:
        for split in SPLITS:
            found = labels[ids[split]].unique().tolist()
            if found != list(range(spec.num_classes)):
                problem = f"has labels {found} in {split} but {spec.num_classes} are specified"
    if problem:
        raise ValueError(
            f"{spec.name} {problem}; nothing was loaded. The files on disk are not the published "
            "set: delete them and download them again."
        )
