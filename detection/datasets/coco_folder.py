"""Folders in COCO's format: one JSON annotation file per part, with the images beside it.

A part is found as `annotations/instances_<part>.json` (COCO's own), `annotations/<part>.json`, or
`<part>/_annotations.coco.json`; its images are in `<part>/`, `images/<part>/` or `images/`. The
part's name determines the split: train*, val*, test*. Without a test part, val is the test split.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.common.file_hash import file_sha256
from lowbit.detection.datasets.coco_json import Places, read_json
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.images_on_disk import ImageFiles
from lowbit.detection.datasets.subsets import first

_LAYOUTS = ("annotations/instances_*.json", "annotations/*.json", "*/_annotations.coco.json")
_FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")  # kept of an annotation


class CocoFolder:
    """A folder in COCO's format; the contract is `lowbit.detection.datasets.catalog.Source`.

    Args:
        name: name used in messages.
        path: the folder.
        parts: the parts for train and test, if there are several candidates; None: as found.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: two files match the same part.
    """

    def __init__(self, name: str, path: Path, *, parts: tuple[str, str] | None = None) -> None:
        self.name, self.path = name, path
        found = {_part(file): file for file in _annotation_files(path)}
        if parts is not None:
            named = dict(zip(("train", "test"), parts, strict=True))
            self.files = {split: found[part] for split, part in named.items() if part in found}
        else:
            self.files = _by_split(name, found.values())
        missing = sorted({"train", "test"} - self.files.keys())
        if missing:
            wanted = parts or ("train", "val")
            raise FileNotFoundError(
                f"{name} is not complete: {path.resolve()} has no annotations to "
                f"{' and '.join(missing)} with; nothing was loaded. Put "
                + " and ".join(f"annotations/instances_{part}.json" for part in wanted)
                + " there, or point $LOWBIT_DATA (or data_root) at the folder that has them."
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""
        return tuple(self.files)

    def load(self, split: str, count: int | None = None) -> DetectionSet:
        """Read a split's annotations; its images are read on access."""
        return read_part(self._file(split), name=self.name, split=split, count=count)

    def sha256(self, *, train: int | None, test: int | None, test_split: str) -> str:
        """Hash the annotation files and the numbers of images."""
        both = _sha256(self._file("train"), train) + _sha256(self._file(test_split), test)
        return hashlib.sha256(both.encode()).hexdigest()

    def _file(self, split: str) -> Path:
        if split not in self.files:
            raise ValueError(
                f"{self.name} has no split {split!r}, only {', '.join(sorted(self.files))}; nothing "
                "was loaded. If val is used as the test split, there is no separate val: add a third "
                "part to the folder, or test on test."
            )
        return self.files[split]


def read_part(
    file: Path, *, name: str, split: str, count: int | None = None, folder: Path | None = None
) -> DetectionSet:
    """Read the annotations of one part; its images are read on access.

    Args:
        file: the annotations, in COCO's format.
        name, split: names used in messages and results.
        count: number of images; None: all of them.
        folder: folder of the images; None: the usual one beside the file.
    """
    content = read_json(file)
    images = sorted(content["images"], key=lambda image: image["id"])
    chosen = set(first([i["id"] for i in images], count, source=f"{split} of {name}"))
    images = [image for image in images if image["id"] in chosen]
    known = {image["id"] for image in content["images"]}
    truth = {
        "images": images,
        # An annotation of an unknown image is kept, so that the check finds it.
        "annotations": [
            {field: a[field] for field in _FIELDS if a.get(field) is not None}
            for a in content["annotations"]
            if a["image_id"] in chosen or a["image_id"] not in known
        ],
        "categories": [{"id": c["id"], "name": c["name"]} for c in content["categories"]],
    }
    folder = folder or _image_folder(file, file.parent.parent, images)
    return DetectionSet(
        name=name,
        split=split,
        truth=truth,
        images=ImageFiles([folder / image["file_name"] for image in images]),
        split_sha256=_sha256(file, count),
        where=Places(file),
    )


def _sha256(file: Path, count: int | None) -> str:
    return hashlib.sha256(f"{file_sha256(file)} {count}".encode()).hexdigest()


def _annotation_files(path: Path) -> list[Path]:
    """Return the annotation files of the first layout found in the folder."""
    for layout in _LAYOUTS:
        found = sorted(file for file in path.glob(layout) if file.is_file())
        if found:
            return found
    return []


def _part(file: Path) -> str:
    if file.name == "_annotations.coco.json":
        return file.parent.name
    return file.stem.removeprefix("instances_")


def _by_split(name: str, files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        split = next(
            (s for s in ("train", "val", "test") if _part(file).lower().startswith(s)), None
        )
        if split in found:
            raise ValueError(
                f"{name} has two files for {split}, {found[split].name} and {file.name}; nothing "
                "was loaded. Keep only one of them in the folder."
            )
        if split is not None:
            found[split] = file
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found


def _image_folder(file: Path, root: Path, images: list[dict[str, Any]]) -> Path:
    """Return the first usual folder that has the first image; if none has, the first one."""
    part = _part(file)
    folders = [root / part, root / "images" / part, root / "images", root]
    name = images[0]["file_name"] if images else ""
    return next((f for f in folders if name and (f / name).is_file()), folders[0])
