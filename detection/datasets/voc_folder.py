"""Folders in Pascal VOC's format: one XML file per image.

Two layouts are read. VOC's own: `JPEGImages/`, `Annotations/` and the lists of image names in
`ImageSets/Main/`, where train is trainval.txt, or else train.txt, and test is test.txt, or else
val.txt. And a bare one, `images/` and `annotations/`, where a fifth is drawn for testing.

Image ids are the positions in a split's list, from 1; the files' names are in `file_name`.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.images_on_disk import ImageFiles
from lowbit.detection.datasets.subsets import draw, first
from lowbit.detection.datasets.voc_lists import VocFiles, class_list, first_folder, read_image_names
from lowbit.detection.datasets.voc_xml import (
    digest,
    line_of,
    parse,
    read_dimensions,
    text_of,
    to_annotation,
)

# fmt: off
CLASSES_2007 = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# fmt: on
_TEST_SHARE = 0.2  # in a bare folder


class _Entry(NamedTuple):
    """An image of a split: its id, its annotation file, and the files of its folder."""

    id: int
    file: Path
    files: VocFiles


class VocFolder:
    """One folder in VOC's format, or several combined; the contract is `lowbit.detection.datasets.catalog.Source`.

    Args:
        name: name used in messages.
        parts: (folder, lines of a list of images) pairs of train, test and, if there is one, val.
        classes: the class names; None: those of the training annotations, sorted.
        base: what corners count from: 1, inclusive, as VOC's do; or 0, borders. None: 1, and a corner
            of 0 is refused by the check.
    """

    def __init__(
        self,
        name: str,
        parts: dict[str, list[tuple[Path, Sequence[str]]]],
        *,
        classes: Sequence[str] | None = None,
        base: int | None = None,
    ) -> None:
        self.name, self.parts = name, parts
        self._classes, self._base = classes, base

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""
        return tuple(self.parts)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is an index into them."""
        if self._classes is not None:
            return tuple(self._classes)
        trees = (parse(entry.file) for entry in self._entries("train"))
        return tuple(
            sorted({text_of(obj, "name") for tree in trees for obj in tree.iter("object")} - {""})
        )

    def load(self, split: str, count: int | None = None) -> DetectionSet:
        """Read a split's annotations; its images are read on access.

        Raises:
            FileNotFoundError: an annotation is missing.
            ValueError: an annotation cannot be read, or does not say which file is its image.
        """
        chosen = self._chosen(split, count)
        ids = {name: number for number, name in enumerate(self.classes, 1)}
        base = 1 if self._base is None else self._base
        images, paths, annotations, places = [], [], [], {}
        for entry in chosen:
            tree = parse(entry.file)
            path = entry.files.image(entry.file, text_of(tree, "filename"))
            height, width = read_dimensions(tree, path, file=entry.file)
            image = {"id": entry.id, "file_name": path.name, "height": height, "width": width}
            images.append(image)
            paths.append(path)
            places["images", entry.id] = (entry.file, None)
            for order, obj in enumerate(tree.iter("object")):
                at = (entry.file, order)
                annotation = to_annotation(obj, ids, base=base, at=at)
                annotation |= {"id": len(annotations) + 1, "image_id": entry.id}
                annotations.append(annotation)
                places["annotations", annotation["id"]] = at

        def where(section: str, entry_id: int | None) -> str:
            place = places.get((section, entry_id))
            return line_of(*place) if place else str(self.parts[split][0][0])

        categories = [{"id": number, "name": name} for name, number in ids.items()]
        return DetectionSet(
            name=self.name,
            split=split,
            truth={"images": images, "annotations": annotations, "categories": categories},
            images=ImageFiles(paths),
            split_sha256=self._sha256(chosen),
            where=where,
            style="voc",
            voc_base=self._base,
        )

    def sha256(self, *, train: int | None, test: int | None, test_split: str) -> str:
        """Hash the annotations of the training and test images."""
        chosen = (self._chosen("train", train), self._chosen(test_split, test))
        return hashlib.sha256("".join(map(self._sha256, chosen)).encode()).hexdigest()

    def _sha256(self, chosen: list[_Entry]) -> str:
        files = [(entry.file.stem, digest(entry.file)) for entry in chosen]
        facts = [self.classes, files, *(["voc_base 0"] if self._base == 0 else [])]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _chosen(self, split: str, count: int | None) -> list[_Entry]:
        entries = self._entries(split)
        names = [entry.file.stem for entry in entries]
        chosen = set(first(names, count, source=f"{split} of {self.name}"))
        return [entry for entry, name in zip(entries, names, strict=True) if name in chosen]

    def _entries(self, split: str) -> list[_Entry]:
        if split not in self.parts:
            raise ValueError(
                f"{self.name} has no split {split!r}, only {', '.join(sorted(self.parts))}; nothing "
                "was loaded. A separate val needs ImageSets/Main/train.txt, val.txt and test.txt, "
                "and no trainval.txt."
            )
        folders = [(VocFiles(folder), lines) for folder, lines in self.parts[split]]
        found = [(files, line) for files, lines in folders for line in lines]
        return [
            _Entry(number, files.annotation(line), files)
            for number, (files, line) in enumerate(found, 1)
        ]


def voc_folder(name: str, path: Path, *, base: int | None = None) -> VocFolder:
    """Find the training and test images of a folder in either layout.

    Args:
        name: name used in messages.
        path: the folder.
        base: what corners count from, see `VocFolder`.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: a list is not text, or there are too few images to draw a test split.
    """
    lists = path / "ImageSets" / "Main"
    if lists.is_dir():
        stems = {file.stem for file in lists.glob("*.txt")}
        files = _choose_lists(stems)
        if files is None:
            raise FileNotFoundError(
                f"{name} is not complete: {lists.resolve()} has no lists of training and test images; "
                "nothing was loaded. Put trainval.txt and test.txt there, or train.txt and val.txt, "
                "one image name per line."
            )
        parts = {
            split: [(path, read_image_names(lists / f"{f}.txt"))] for split, f in files.items()
        }
    else:
        annotations = first_folder(path, "Annotations", "annotations")
        if not annotations.is_dir():
            raise FileNotFoundError(
                f"{name} is missing: {path.resolve()} has no folder of annotations; nothing was "
                "loaded. Put images/ and annotations/ (or VOC's JPEGImages/, Annotations/ and "
                "ImageSets/) there, or point $LOWBIT_DATA (or data_root) at the folder above."
            )
        names = sorted(file.stem for file in annotations.glob("*.xml"))
        test = draw(names, round(_TEST_SHARE * len(names)))
        if not test:
            raise ValueError(
                f"{name} has {len(names)} annotations in {annotations}, of which a fifth cannot be "
                "drawn for testing; nothing was loaded. Add images (three are enough), or list train "
                "and test images in ImageSets/Main/."
            )
        parts = {
            "train": [(path, [name for name in names if name not in test])],
            "test": [(path, [name for name in names if name in test])],
        }
    return VocFolder(name, parts, classes=class_list(path), base=base)


def custom_voc(root: Path) -> VocFolder:
    """Return VOC's usual split: trainval of 2007 and 2012 for training, test of 2007 for testing."""
    parts = {
        "train": [(root / "VOC2007", "trainval"), (root / "VOC2012", "trainval")],
        "test": [(root / "VOC2007", "test")],
    }
    try:
        lists = {
            split: [
                (f, read_image_names(f / "ImageSets" / "Main" / f"{part}.txt"))
                for f, part in sources
            ]
            for split, sources in parts.items()
        }
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"voc0712 is not complete: there is no {Path(error.filename).resolve()}; nothing was "
            "loaded. Unpack VOCtrainval_06-Nov-2007, VOCtest_06-Nov-2007 and VOCtrainval_11-May-2012 "
            "as VOC2007/ and VOC2012/, or point $LOWBIT_DATA (or data_root) at the folder above."
        ) from error
    return VocFolder("voc0712", lists, classes=CLASSES_2007, base=1)


def _choose_lists(stems: set[str]) -> dict[str, str] | None:
    if {"trainval", "test"} <= stems:
        return {"train": "trainval", "test": "test"}
    if {"train", "val", "test"} <= stems:
        return {"train": "train", "val": "val", "test": "test"}
    if {"train", "test"} <= stems:
        return {"train": "train", "test": "test"}
    if {"train", "val"} <= stems:
        return {"train": "train", "test": "val"}
    return None
