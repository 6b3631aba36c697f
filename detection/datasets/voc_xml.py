"""Pascal VOC's XML: one file per image, one `object` element per object."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from lowbit.common.file_hash import file_sha256
from lowbit.detection.datasets.images_on_disk import read_size

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def digest(file: Path) -> str:
    """Return the SHA-256 of an annotation file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        return file_sha256(file)
    except FileNotFoundError as error:
        raise _missing(file) from error


def parse(file: Path) -> ET.Element:
    """Read an annotation file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not XML.
    """
    try:
        return ET.fromstring(file.read_bytes())
    except FileNotFoundError as error:
        raise _missing(file) from error
    except ET.ParseError as error:
        raise ValueError(
            f"{file}:{error.position[0]}: this is not XML ({error}); nothing was loaded. Save the "
            "annotation again."
        ) from error


def read_dimensions(tree: ET.Element, image: Path) -> tuple[int, int]:
    """Return (height, width) from the annotation or, if it has none, from the image."""
    found = [tree.findtext(f"size/{side}") for side in ("height", "width")]
    if all(found) and all(float(value) > 0 for value in found):
        return round(float(found[0])), round(float(found[1]))
    return read_size(image)


def to_annotation(obj: ET.Element, ids: dict[str, int], *, at: tuple) -> dict[str, Any]:
    """Return an object in COCO's format; VOC's corners count from 1 and are inclusive.

    An unknown class is kept as its name, so that the check finds it.
    """
    name = text_of(obj, "name")
    try:
        x1, y1, x2, y2 = (float(text_of(obj, f"bndbox/{corner}")) for corner in _CORNERS)
    except ValueError as error:
        raise ValueError(
            f"{line_of(*at)}: an object has no box of four numbers (xmin, ymin, xmax, ymax); nothing "
            "was loaded. Save the annotation again."
        ) from error
    width, height = x2 - x1 + 1, y2 - y1 + 1
    return {
        "category_id": ids.get(name, name),
        "bbox": [x1 - 1, y1 - 1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "difficult": int(text_of(obj, "difficult") == "1"),
    }


def text_of(element: ET.Element, path: str) -> str:
    """Return the text at a path under an element; empty if there is none."""
    return (element.findtext(path) or "").strip()


def line_of(file: Path, order: int | None) -> str:
    """Return file and line of the `order`-th object, or of the start of the file."""
    if order is None:
        return f"{file}:1"
    text = file.read_text(errors="replace")
    begin = [match.start() for match in re.finditer(r"<object\b", text)][order]
    return f"{file}:{text.count(chr(10), 0, begin) + 1}"


def _missing(file: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"there is no {file}, which the list of images names; nothing was loaded. Restore it, or "
        "remove the name from the list."
    )
