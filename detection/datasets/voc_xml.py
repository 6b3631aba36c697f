"""Pascal VOC's XML: one file per image, one `object` element per object."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from xml.parsers import expat

from lowbit.common.encoded_text import decode_text
from lowbit.common.file_hash import file_sha256
from lowbit.data.decoding import image_size

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


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
    """Read an annotation file in the encoding that its first bytes show or its first line declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not XML.
    """
    try:
        return ET.fromstring(_text(file))
    except FileNotFoundError as error:
        raise _missing(file) from error
    except ET.ParseError as error:
        raise ValueError(
            f"{file}:{error.position[0]}: this is not XML ({error}); nothing was loaded. Save the "
            "annotation again."
        ) from error


def read_dimensions(tree: ET.Element, image: Path, *, file: Path) -> tuple[int, int]:
    """Return (height, width) from the annotation or, if it has none, from the image.

    Raises:
        ValueError: they are not numbers, or the annotation has none and the image cannot be read.
    """
    found = [(tree.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if not all(found):
        return image_size(image, upright=True)
    try:
        height, width = (round(float(value)) for value in found)
    except (ValueError, OverflowError) as error:  # no number, NaN, infinite
        raise ValueError(
            f"{file}:{_lines(file, 'size')[0]}: height {found[0]!r} and width {found[1]!r} are not "
            "two numbers; nothing was loaded. Correct <size>, or remove it: then the image is measured."
        ) from error
    return (height, width) if min(height, width) > 0 else image_size(image, upright=True)


def to_annotation(obj: ET.Element, ids: dict[str, int], *, base: int, at: tuple) -> dict[str, Any]:
    """Return an object in COCO's format.

    VOC's corners count from 1 and are inclusive; with `base` 0 they are the box's borders, counted
    from 0. An unknown class is kept as its name, so that the check finds it.

    Args:
        obj: the element.
        ids: category ids by name.
        base: what corners count from, 0 or 1.
        at: file and position of the object, for messages.
    """
    name = text_of(obj, "name")
    try:
        x1, y1, x2, y2 = (float(text_of(obj, f"bndbox/{corner}")) for corner in _CORNERS)
        if not math.isfinite(x1 + y1 + x2 + y2):
            raise ValueError("not finite")
    except ValueError as error:
        raise ValueError(
            f"{line_of(*at)}: an object has no box of four numbers (xmin, ymin, xmax, ymax); nothing "
            "was loaded. Save the annotation again."
        ) from error
    width, height = x2 - x1 + base, y2 - y1 + base
    return {
        "category_id": ids.get(name, name),
        "bbox": [x1 - base, y1 - base, width, height],
        "area": width * height,
        "iscrowd": 0,
        "difficult": int(text_of(obj, "difficult") == "1"),
    }


def text_of(element: ET.Element, path: str) -> str:
    """Return the text at a path under an element; empty if there is none."""
    return (element.findtext(path) or "").strip()


def line_of(file: Path, order: int | None) -> str:
    """Return file and line of the `order`-th object, or of the start of the file."""
    return f"{file}:{1 if order is None else _lines(file, 'object')[order]}"


def _lines(file: Path, tag: str) -> list[int]:
    """Return the lines on which the elements with a tag begin."""
    lines: list[int] = []
    parser = expat.ParserCreate("utf-8")

    def start(name: str, _: dict[str, str]) -> None:
        if name == tag:
            lines.append(parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.Parse(_text(file).encode(), True)
    return lines


def _text(file: Path) -> str:
    data = file.read_bytes()
    declared = _DECLARED.match(data)
    try:
        return decode_text(data, declared=declared and declared.group(1).decode())
    except ValueError as error:
        raise ValueError(
            f"{file}:1: this is not text in its encoding ({error}); nothing was loaded. Save it as "
            'UTF-8, or declare its encoding in the first line: <?xml version="1.0" encoding="...".'
        ) from error


def _missing(file: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"there is no {file}, which the list of images names; nothing was loaded. Restore it, or "
        "remove the name from the list."
    )
