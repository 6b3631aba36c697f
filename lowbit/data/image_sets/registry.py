"""Image sets by name: what they hold, how they are split, and the check that both are still so.

An image set is a function registered in `IMAGE_SETS` that returns an `ImageSet`. Its splits are
pinned by a file in `data/splits/` whose SHA-256 stands in the set's specification: a changed file
is refused, so two rows of a leaderboard with the same `split_sha256` saw the same images.

A set that is a folder of the user's (`folder:NAME`, `lowbit.data.image_sets.image_folder`; of videos, `frames:NAME`,
`lowbit.data.image_sets.video_folder`) has no such pin: its files are its identity, and `locate` finds it out.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from lowbit.common.suggest import did_you_mean

if TYPE_CHECKING:
    from lowbit.data.image_sets.image_folder import Folder
    from lowbit.data.image_sets.published_sets import Published

SPLITS = ("train", "val", "test")
SPLITS_DIR = Path(__file__).parent / "splits"
ROOT_VARIABLE = "LOWBIT_DATA"
FOLDER = "folder:"
FRAMES = "frames:"

Pin = Literal["ids", "official", "drawn", "files"]
Triple = tuple[float, float, float]

# The field's choice for photographs.
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)

IMAGE_SETS = Registry("IMAGE_SETS")
IMAGE_SETS.__doc__ = """
Registry of image sets. Register a function without arguments that returns an `ImageSet`; the
function's name is the data set's name in recipes. Put its pinned splits in
`data/splits/<name>.json`: `{"version": 1, "classes": [names], ...}` with either the ids themselves,
`"train": [ids], "val": [ids], "test": [ids]`, or a `"rule"` as `_ids_by_rule` reads it; of a set
that stays in its files, as `lowbit.data.image_sets.published_sets` reads it, without the classes.
"""


@dataclass(frozen=True)
class ImageSet:
    """Specify an image set.

    `read(root)` returns every image as uint8 (N, 3, H, W) and every label as int64 (N,); an image's
    id is its place in them. `counts` are the images per split that a load must find. `mean` and
    `std` are per channel, in units of 0..1. `size` is the side of the images, in pixels. `metrics`
    are what its papers report. `pin` says what `split_sha256` is of:

        ids: the split file, which has the ids themselves.
        official: the split file, which names the publisher's parts; their lists are in archives
            whose MD5s torchvision knows, and a salted hash draws val out of train.
        drawn: the split file, with a salt that orders the files of a class by their names' hashes.
        files: the paths and sizes of the files found; there is no split file.

    A set of image files has `folder(root)` in place of `read`. What only a user's files can tell (of
    `num_classes`, `counts`, `size` and `split_sha256`) is None until `locate` fills it in; a `size`
    of None after that means images too large, or of too many sizes, to hold in memory. `frames` is how
    many images of a video are seen; None: the set's samples are images.
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
    folder: Callable[[Path], "Folder | Published"] | None = None
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


def list_datasets() -> list[str]:
    """Name every registered image set, sorted."""
    return sorted(name for name, _ in IMAGE_SETS)


def image_set(name: str) -> ImageSet:
    """Return the specification of an image set by its name, without a look at the disk."""
    if name.startswith(FOLDER):
        from lowbit.data.image_sets.image_folder import folder_set

        return folder_set(name)
    if name.startswith(FRAMES):
        from lowbit.data.image_sets.video_folder import video_set

        return video_set(name)
    if name not in IMAGE_SETS:
        raise ValueError(
            f"there is no image set named {name!r}; nothing was loaded."
            f"{did_you_mean(name, list_datasets())} Known sets: {', '.join(list_datasets())}, and {FOLDER}NAME for images, "
            f"{FRAMES}NAME for videos of your own."
        )
    return IMAGE_SETS.get(name)()


def locate(name: str, *, root: str | os.PathLike | None = None) -> ImageSet:
    """Return the specification of an image set with what its files under `root` decide.

    Args:
        name: as `load` takes it.
        root: folder of the sets; default `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: the set is a folder, and it is not there.
        ValueError: there is no such set, or its folder is not laid out as it should be.

    Example:
        >>> locate("digits").split_sha256 == image_set("digits").split_sha256
        True
    """
    spec = image_set(name)
    if spec.folder is None:
        return spec
    from lowbit.data.image_sets.image_folder import located

    return located(spec, resolve_root(root))


def resolve_root(root: str | os.PathLike | None) -> Path:
    """Return the folder of the sets: the one given, else `$LOWBIT_DATA`, else `./datasets`."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or "datasets")


def normalization(name: str) -> tuple[Triple, Triple]:
    """Return the (mean, std) of an image set, per channel, in units of 0..1."""
    spec = image_set(name)
    return spec.mean, spec.std


def load(name: str, split: str, *, root: str | os.PathLike | None = None) -> Split:
    """Load a split into memory after checking its pinned file, its counts and its classes.

    Args:
        name: a registered image set, or `folder:NAME`.
        split: "train", "val", "test", or "trainval" (train and val, in the order of the ids).
        root: folder of the downloaded sets; default `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        ValueError: the set or split is unknown, or what was found is not what is pinned.
        FileNotFoundError: the set's files are not there; the message says how to get them.

    Example:
        >>> len(load("digits", "test"))
        540
    """
    image_set(name)  # an unknown name is answered before an unknown split
    check_split(name, split)
    spec = locate(name, root=root)
    images, labels, ids, classes = _from_folder(spec) if spec.folder else _from_pinned(spec, root)
    wanted = choose(ids, split)
    return Split(
        images=images[wanted],
        labels=labels[wanted],
        ids=wanted,
        classes=classes,
        name=name,
        split=split,
        split_sha256=spec.split_sha256,
    )


def check_split(name: str, split: str) -> None:
    """Refuse a split that no set has."""
    if split not in (*SPLITS, "trainval"):
        raise ValueError(
            f"{name} has no split {split!r}; nothing was loaded. "
            "Use one of train, val, test, trainval."
        )


def choose(ids: dict[str, Tensor], split: str) -> Tensor:
    """Return the ids of a split in their order; "trainval" is train and val."""
    wanted = torch.cat([ids["train"], ids["val"]]) if split == "trainval" else ids[split]
    return wanted.sort().values


_Contents = tuple[Tensor, Tensor, dict[str, Tensor], tuple[str, ...]]


def _from_pinned(spec: ImageSet, root: str | os.PathLike | None) -> _Contents:
    pinned = read_pinned(spec)
    images, labels = spec.read(resolve_root(root))
    ids = _split_ids(pinned, labels)
    check_splits(spec, ids, labels)
    return images, labels, ids, tuple(pinned["classes"])


def _from_folder(spec: ImageSet) -> _Contents:
    folder = spec.folder(None)
    if spec.size is None:
        raise ValueError(
            f"the images of {spec.name} are too large, or of too many sizes, to hold in memory; "
            "nothing was loaded. Pretraining streams them; for what reads a set whole, store them at "
            "one square size of at most 64 pixels."
        )
    return folder.images(), folder.labels, folder.ids(), folder.classes


def read_pinned(spec: ImageSet) -> dict:
    """Return a set's split file, refused when it is not the pinned one."""
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


def _split_ids(pinned: dict, labels: Tensor) -> dict[str, Tensor]:
    if "rule" in pinned:
        return _ids_by_rule(pinned["rule"], labels)
    return {split: torch.tensor(pinned[split], dtype=torch.int64) for split in SPLITS}


def _ids_by_rule(rule: dict, labels: Tensor) -> dict[str, Tensor]:
    """Carve val out of the official training images, which are the first `train_images` ids.

    Within each class the ids are ordered by SHA-256 of "<salt>/<id>", and the first
    `val_per_class` become val: a draw that no library's random numbers can change.
    """
    first_test = rule["train_images"]
    train, val = [], []
    for label in labels.unique().tolist():
        members = (labels[:first_test] == label).nonzero().flatten().tolist()
        members.sort(key=lambda i: hashlib.sha256(f"{rule['salt']}/{i}".encode()).digest())
        val += members[: rule["val_per_class"]]
        train += members[rule["val_per_class"] :]
    return {
        "train": torch.tensor(train, dtype=torch.int64),
        "val": torch.tensor(val, dtype=torch.int64),
        "test": torch.arange(first_test, len(labels)),
    }


def check_splits(spec: ImageSet, ids: dict[str, Tensor], labels: Tensor) -> None:
    """Refuse splits that overlap, lack a class, or have other counts than the specification."""
    counts = {split: len(ids[split]) for split in SPLITS}
    every = torch.cat(list(ids.values()))
    problem = None
    if counts != spec.counts:
        problem = f"has {counts} images per split where {spec.counts} are specified"
    elif len(every.unique()) != len(every) or int(every.max()) >= len(labels):
        problem = "has an image in two splits, or one that does not exist"
    else:
        for split in SPLITS:
            found = labels[ids[split]].unique().tolist()
            if found != list(range(spec.num_classes)):
                problem = f"has labels {found} in {split} where {spec.num_classes} are specified"
    if problem:
        raise ValueError(
            f"{spec.name} {problem}; nothing was loaded. The files on disk are not the published "
            "set: delete them and get them again."
        )
