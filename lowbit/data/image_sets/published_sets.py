"""Sets of photographs as their publishers split them, listed by torchvision's classes.

The file `lowbit/data/image_sets/splits/<name>.json` pins a rule, not ids: `"train"` and `"test"` name official parts
(listed in archives of known MD5), or `"train_per_class"` and `"test_per_class"` give how
many of each class are drawn. An order that no library's random numbers can change draws them, and
then val out of train: the files of a class by the SHA-256 of "<salt>/<path>".
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowbit.data import sidecar_files
from lowbit.data.decoding import problems
from lowbit.data.image_sets.folder_manifest import look
from lowbit.data.image_sets.spec import ROOT_VARIABLE, SPLITS, Files, ImageSet, choose, read_pinned

_NAMED = 3  # missing files named in a message


@dataclass(frozen=True)
class Listing:
    """The images a publisher lists: paths under `folder`, labels, and the official part of each."""

    folder: Path
    classes: tuple[str, ...]
    paths: list[str]
    labels: list[int]
    parts: list[str]


class Published:
    """A published set on disk, the counterpart of `Folder` for a user's images.

    Args:
        spec: specification of the set.
        listing: all its images.

    Attributes:
        path, classes: as a `Folder` has them.
        paths: sorted; an id is an index into them.
        labels: the class of every file, int64.
        size: None: photographs have many sizes.

    Raises:
        ValueError: listed files are missing, or there are more or fewer than published.
    """

    size = None

    def __init__(self, spec: ImageSet, listing: Listing) -> None:
        self.name, self.path, self.classes = spec.name, listing.folder, listing.classes
        self.split_sha256 = spec.split_sha256
        self._rule = read_pinned(spec)["rule"]
        order = sorted(range(len(listing.paths)), key=listing.paths.__getitem__)
        self.paths = [listing.paths[i] for i in order]
        self.labels = torch.tensor([listing.labels[i] for i in order], dtype=torch.int64)
        self._parts = [listing.parts[i] for i in order]
        self._check_files()

    @property
    def contents(self) -> list[str]:
        """Relative paths of the files, as a `Folder` has them."""
        return self.paths

    def _check_files(self) -> None:
        found = {}
        for folder in {os.path.dirname(path) for path in self.paths}:
            there = self.path / folder
            found[folder] = set(os.listdir(there)) if there.is_dir() else set()
        missing = [p for p in self.paths if os.path.basename(p) not in found[os.path.dirname(p)]]
        wanted = self._rule["images"]
        if missing or len(self.paths) != wanted:
            named = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
            problem = f"lacks {len(missing)} listed files ({named})" if missing else "is incomplete"
            raise ValueError(
                f"{self.name} in {self.path.resolve()} {problem} and lists {len(self.paths)} files where "
                f"{wanted} are published; nothing was loaded. Delete the folder and unpack the "
                f"archive again: `lowbit-bench datasets prepare {self.name}`."
            )

    def _by_class(self) -> list[list[int]]:
        members = [[] for _ in self.classes]
        for i, label in enumerate(self.labels.tolist()):
            members[label].append(i)
        for ids in members:
            ids.sort(key=self._drawn)
        return members

    def _drawn(self, index: int) -> bytes:
        text = f"{self._rule['salt']}/{self.paths[index]}"
        return hashlib.sha256(text.encode()).digest()

    @cached_property
    def _ids(self) -> dict[str, Tensor]:
        rule, ids = self._rule, {split: [] for split in SPLITS}
        for members in self._by_class():
            if "test_per_class" in rule:
                test = members[: rule["test_per_class"]]
                train = members[len(test) : len(test) + rule["train_per_class"]]
            else:
                test = [i for i in members if self._parts[i] in rule["test"]]
                train = [i for i in members if self._parts[i] in rule["train"]]
            ids["test"] += test
            ids["val"] += train[: rule["val_per_class"]]
            ids["train"] += train[rule["val_per_class"] :]
        return {split: torch.tensor(found).sort().values for split, found in ids.items()}

    def ids(self) -> dict[str, Tensor]:
        """Return the ids of each split."""
        return self._ids

    def counts(self) -> dict[str, int]:
        """Count the images of each split."""
        return {split: len(found) for split, found in self.ids().items()}

    def files(self, split: str) -> Files:
        """Return the files of a split that `load` accepts."""
        paths = np.array([os.fsencode(path) for path in self.paths])
        return Files(self.path, paths[choose(self.ids(), split).numpy()])

    def damaged(self) -> Iterator[str | None]:
        """Decode every file; yield for each its problem or None."""
        return problems([f"{self.path}/{path}" for path in self.paths])

    def changed(self) -> str | None:
        """Return whether files changed since the set was first verified, which this records.

        The record is the SHA-256 over all paths and sizes, in `<set>/.lowbit/files.json`.
        """
        sha256, _ = look(self.path, self.contents)
        file = self.path / sidecar_files.FOLDER / "files.json"
        if not file.exists():
            text = json.dumps({"version": 1, "files": len(self.paths), "sha256": sha256}).encode()
            sidecar_files.keep(
                file, lambda out: out.write(text), otherwise="cannot detect changed files"
            )
            return None
        earlier = json.loads(file.read_text())["sha256"]
        if sha256 == earlier:
            return None
        return (
            f"the sizes of its files are not those of its first verification (SHA-256 {sha256[:12]}, "
            f"then {earlier[:12]}): unpack the archive again, or delete {file} to accept them"
        )


def from_torchvision(
    name: str,
    root: Path,
    *,
    kind: str,
    folder: str,
    parts: tuple[str, ...] = ("train", "val", "test"),
    files: str = "_image_files",
    **options: Any,
) -> Listing:
    """List a set through its torchvision class.

    Args:
        name: used in messages.
        root: folder of the sets.
        kind: the class.
        folder: base of the paths, under `root`.
        parts: its official parts.
        files: the class attribute with the paths.
        options: of the class.

    Raises:
        FileNotFoundError, ValueError: as `whole`.
    """
    from torchvision import datasets

    def listed() -> list[Any]:
        return [getattr(datasets, kind)(str(root), split=part, **options) for part in parts]

    found = whole(name, root, listed)
    base = root.expanduser() / folder  # as torchvision expands it
    start = len(os.path.join(base, ""))  # common prefix of the paths
    return Listing(
        folder=base,
        classes=tuple(found[-1].classes),
        paths=[str(path)[start:] for one in found for path in getattr(one, files)],
        labels=[label for one in found for label in one._labels],
        parts=[part for part, one in zip(parts, found, strict=True) for _ in one._labels],
    )


def caltech101_listing(root: Path) -> Listing:
    """List Caltech-101 without its background class; it has no official parts."""
    from torchvision.datasets import Caltech101

    base, images = root.expanduser() / "caltech101", "101_ObjectCategories"

    def listed() -> Caltech101:
        if not (base / images).is_dir():  # torchvision would create the parent folder
            raise FileNotFoundError(f"{base / images} does not exist")
        return Caltech101(str(root))

    found = whole("caltech101", root, listed)
    pairs = list(zip(found.y, found.index, strict=True))
    return Listing(
        folder=base,
        classes=tuple(found.categories),
        paths=[f"{images}/{found.categories[y]}/image_{number:04d}.jpg" for y, number in pairs],
        labels=[y for y, _ in pairs],
        parts=["all"] * len(pairs),
    )


def whole(name: str, root: Path, listed: Callable[[], Any]) -> Any:
    """Return torchvision's listing, or raise with instructions for getting the set.

    Raises:
        FileNotFoundError: the set is missing.
        ValueError: torchvision cannot read the set's lists.
    """
    try:
        return listed()
    except (RuntimeError, FileNotFoundError) as error:  # torchvision raises one or the other
        raise FileNotFoundError(
            f"{name} is not complete under {root.resolve()} ({error}); nothing was loaded. Get it "
            f"with `lowbit-bench datasets prepare {name} --download --root {root}`, or point "
            f"${ROOT_VARIABLE} (or data_root) at a folder that has it."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the lists of {name} under {root.resolve()} cannot be read ({error}); nothing was "
            f"loaded. Delete its folder and run `lowbit-bench datasets prepare {name}`."
        ) from error
