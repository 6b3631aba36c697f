"""Folders in Pascal VOC's format: one XML file per image.

Two layouts are read. VOC's own: `JPEGImages/`, `Annotations/` and the lists of image names in
`ImageSets/Main/`, where train is trainval.txt, or else train.txt, and test is test.txt, or else
val.txt. And a bare one, `images/` and `annotations/`, where a fifth is drawn for testing.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.images_on_disk import ImageFiles
from lowbit.detection.datasets.subsets import draw, first
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
_CLASS_FILES = ("classes.txt", "labels.txt")
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_TEST_SHARE = 0.2  # in a bare folder


class VocFolder:
    """One folder in VOC's format, or several combined; the contract is `lowbit.detection.datasets.catalog.Source`.

    Args:
        name: name used in messages.
        parts: (folder, list of image names) pairs of train, test and, if there is one, val.
        classes: the class names; None: those of the training annotations, sorted.
    """

    def __init__(
        self,
        name: str,
        parts: dict[str, list[tuple[Path, Sequence[str]]]],
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.name, self.parts = name, parts
        self._classes = classes

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is an index into them."""
        if self._classes is not None:
            return tuple(self._classes)
        trees = (parse(file) for file, _ in self._files("train"))
        return tuple(
            sorted({text_of(obj, "name") for tree in trees for obj in tree.iter("object")})
        )

    def load(self, split: str, count: int | None = None) -> DetectionSet:
        """Read a split's annotations; its images are read on access."""
        files = self._chosen(split, count)
        ids = {name: number for number, name in enumerate(self.classes, 1)}
        images, annotations, places = [], [], {}
        for file, image in files:
            tree = parse(file)
            height, width = read_dimensions(tree, image)
            entry = {"id": file.stem, "file_name": image.name, "height": height, "width": width}
            images.append(entry)
            places["images", file.stem] = (file, None)
            for order, obj in enumerate(tree.iter("object")):
                annotation = to_annotation(obj, ids, at=(file, order))
                annotation |= {"id": len(annotations) + 1, "image_id": file.stem}
                annotations.append(annotation)
                places["annotations", annotation["id"]] = (file, order)
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        return DetectionSet(
            name=self.name,
            split=split,
            truth={"images": images, "annotations": annotations, "categories": categories},
            images=ImageFiles([image for _, image in files]),
            split_sha256=self._sha256(files),
            where=lambda section, entry_id: line_of(*places[section, entry_id]),
            style="voc",
        )

    def sha256(self, *, train: int | None, test: int | None, test_split: str) -> str:
        """Hash the annotations of the training and test images."""
        chosen = (self._chosen("train", train), self._chosen(test_split, test))
        return hashlib.sha256("".join(map(self._sha256, chosen)).encode()).hexdigest()

    def _sha256(self, files: list[tuple[Path, Path]]) -> str:
        entries = [(file.stem, digest(file)) for file, _ in files]
        return hashlib.sha256(json.dumps([self.classes, entries]).encode()).hexdigest()

    def _chosen(self, split: str, count: int | None) -> list[tuple[Path, Path]]:
        files = self._files(split)
        names = [annotation.stem for annotation, _ in files]
        chosen = set(first(names, count, source=f"{split} of {self.name}"))
        return [pair for pair, name in zip(files, names, strict=True) if name in chosen]

    def _files(self, split: str) -> list[tuple[Path, Path]]:
        """Return the XML file and the image file of each image of a split."""
        if split not in self.parts:
            raise ValueError(
                f"{self.name} has no split {split!r}, only {', '.join(sorted(self.parts))}; nothing "
                "was loaded. A separate val needs ImageSets/Main/train.txt, val.txt and test.txt, "
                "and no trainval.txt."
            )
        found = []
        for folder, names in self.parts[split]:
            annotations = _folder(folder, "Annotations", "annotations")
            pictures = _folder(folder, "JPEGImages", "images")
            extensions = {p.stem: p for p in pictures.iterdir() if p.suffix.lower() in _EXTENSIONS}
            found += [
                (annotations / f"{name}.xml", extensions.get(name, pictures / f"{name}.jpg"))
                for name in names
            ]
        return found


def voc_folder(name: str, path: Path) -> VocFolder:
    """Find the training and test images of a folder in either layout.

    Raises:
        FileNotFoundError: a part is missing.
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
        parts = {split: [(path, read_list(lists / f"{f}.txt"))] for split, f in files.items()}
    else:
        annotations = _folder(path, "Annotations", "annotations")
        if not annotations.is_dir():
            raise FileNotFoundError(
                f"{name} is missing: {path.resolve()} has no folder of annotations; nothing was "
                "loaded. Put images/ and annotations/ (or VOC's JPEGImages/, Annotations/ and "
                "ImageSets/) there, or point $LOWBIT_DATA (or data_root) at the folder above."
            )
        names = sorted(file.stem for file in annotations.glob("*.xml"))
        test = draw(names, round(_TEST_SHARE * len(names)))
        parts = {
            "train": [(path, [name for name in names if name not in test])],
            "test": [(path, [name for name in names if name in test])],
        }
    return VocFolder(name, parts, classes=_class_list(path))


def custom_voc(root: Path) -> VocFolder:
    """Return VOC's usual split: trainval of 2007 and 2012 for training, test of 2007 for testing."""
    parts = {
        "train": [(root / "VOC2007", "trainval"), (root / "VOC2012", "trainval")],
        "test": [(root / "VOC2007", "test")],
    }
    try:
        lists = {
            split: [(f, read_list(f / "ImageSets" / "Main" / f"{part}.txt")) for f, part in sources]
            for split, sources in parts.items()
        }
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"voc0712 is not complete: there is no {Path(error.filename).resolve()}; nothing was "
            "loaded. Unpack VOCtrainval_06-Nov-2007, VOCtest_06-Nov-2007 and VOCtrainval_11-May-2012 "
            "as VOC2007/ and VOC2012/, or point $LOWBIT_DATA (or data_root) at the folder above."
        ) from error
    return VocFolder("voc0712", lists, classes=CLASSES_2007)


def read_list(file: Path) -> list[str]:
    """Read the image names of an ImageSets list, one per line; a flag after a name is ignored."""
    return [line.split()[0] for line in file.read_text().splitlines() if line.strip()]


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


def _class_list(path: Path) -> list[str] | None:
    for file in _CLASS_FILES:
        if (path / file).is_file():
            return [n.strip() for n in (path / file).read_text().splitlines() if n.strip()]
    return None


def _folder(path: Path, *names: str) -> Path:
    """Return the first folder that exists, or else the last."""
    return next((path / name for name in names if (path / name).is_dir()), path / names[-1])
