"""Image sets by name: find one, locate it under a root, load a split of it.

An image set is a function registered in `IMAGE_SETS` that returns an `ImageSet`. Its splits are
pinned by a file in `lowbit/data/image_sets/splits/` whose SHA-256 is in the set's specification:
a changed file is refused, so two rows of a leaderboard with the same `split_sha256` saw the same
images.

A folder of the user's has no such pin (`folder:NAME`, `lowbit.data.image_sets.image_folder`; of
videos `frames:NAME`, `lowbit.data.image_sets.video_folder`): its files are its identity, which
`locate` computes.
"""

import hashlib
import os

import torch
from torch import Tensor

from lowbit.common.input_files.found_once import once
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief
from lowbit.data.image_sets.image_folder import folder_set, located
from lowbit.data.image_sets.spec import (
    FOLDER,
    FRAMES,
    IMAGE_SETS,
    SPLITS,
    ImageSet,
    Split,
    Triple,
    check_split,
    check_splits,
    choose,
    read_pinned,
    resolve_root,
)
from lowbit.data.image_sets.video_sets import video_set


def list_datasets() -> list[str]:
    """Return the names of all registered image sets, sorted."""
    return sorted(name for name, _ in IMAGE_SETS)


def image_set(name: str) -> ImageSet:
    """Return the specification of an image set by name, without reading the disk."""
    if name.startswith(FOLDER):
        return folder_set(name)
    if name.startswith(FRAMES):
        return video_set(name)
    if name not in IMAGE_SETS:
        raise ValueError(
            f"there is no image set named {brief(name)}; nothing was loaded."
            f"{did_you_mean(name, list_datasets())} Known sets: {', '.join(list_datasets())}, and {FOLDER}NAME for images, "
            f"{FRAMES}NAME for videos of your own."
        )
    return IMAGE_SETS.get(name)()


def locate(name: str, *, root: str | os.PathLike | None = None) -> ImageSet:
    """Return an image set's specification, completed from its files under `root`.

    Args:
        name: as in `load`.
        root: folder of the sets; default `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: the set is a folder and is missing.
        ValueError: unknown set, or its folder has the wrong layout.

    Example:
        >>> locate("digits").split_sha256 == image_set("digits").split_sha256
        True
    """
    spec = image_set(name)
    if spec.folder is None:
        return spec
    root = resolve_root(root)
    return once(("set", name, os.path.abspath(root)), lambda: located(spec, root))


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
        ValueError: the set or split is unknown, or the data differ from the pinned splits.
        FileNotFoundError: the set's files are missing; the message explains how to get them.

    Example:
        >>> len(load("digits", "test"))
        540
    """
    image_set(name)  # report an unknown name before an unknown split
    check_split(name, split)
    return read_split(locate(name, root=root), split, root=root)


def read_split(spec: ImageSet, split: str, *, root: str | os.PathLike | None = None) -> Split:
    """Load a split of a set that `locate` returned, as `load`."""
    images, labels, ids, classes = _from_folder(spec) if spec.folder else _from_pinned(spec, root)
    wanted = choose(ids, split)
    return Split(
        images=images[wanted],
        labels=labels[wanted],
        ids=wanted,
        classes=classes,
        name=spec.name,
        split=split,
        split_sha256=spec.split_sha256,
    )


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
            "nothing was loaded. Pretraining streams them; to load the whole set, store them at "
            "one square size of at most 64 pixels."
        )
    return folder.images(), folder.labels, folder.ids(), folder.classes


def _split_ids(pinned: dict, labels: Tensor) -> dict[str, Tensor]:
    if "rule" in pinned:
        return _ids_by_rule(pinned["rule"], labels)
    return {split: torch.tensor(pinned[split], dtype=torch.int64) for split in SPLITS}


def _ids_by_rule(rule: dict, labels: Tensor) -> dict[str, Tensor]:
    """Split val off the official training images, which are the first `train_images` ids.

    Within each class the ids are ordered by SHA-256 of "<salt>/<id>", and the first
    `val_per_class` become val, a draw that no library's random numbers can change.
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
