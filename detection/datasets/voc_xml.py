"""Pascal VOC's XML: one file per image, one `object` element per object."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from xml.parsers import expat

from lowbit.common.encoded_text import decode_text
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.regular_file import NotAFileError, check_regular, read_regular
from lowbit.common.text import brief
from lowbit.data.decoding import image_size

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_FILE = 64 * 10**6  # bytes; a whole set's objects have less
_FARTHEST = 2**20  # pixels: of a corner, and of an image's side
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


def digest(file: Path) -> str:
    """Return the SHA-256 of an annotation file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a regular file.
    """
    try:
        check_regular(file)
        return file_sha256(file)
    except FileNotFoundError as error:
        raise _missing(file) from error
    except NotAFileError as error:
        raise _unreadable(file, error) from error


def parse(file: Path) -> ET.Element:
    """Read an annotation file in the encoding that its first bytes show or its first line declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not XML, is not a regular file or too long, or declares a document type.
    """
    try:
        text = _text(file)
        if "<!DOCTYPE" in text:  # which may define entities that grow, or are other files
            line = text.count("\n", 0, text.index("<!DOCTYPE")) + 1
            raise ValueError(
                f"{file}:{line}: it declares a document type, which annotations have none of; nothing was "
                "loaded. Remove <!DOCTYPE ...>, and write what its entities stand for."
            )
        return ET.fromstring(text)
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
        height, width = (round(_number(value)) for value in found)
    except ValueError as error:
        raise ValueError(
            f"{file}:{_lines(file, 'size')[0]}: height {brief(found[0])} and width {brief(found[1])} are not "
            f"two numbers up to {_FARTHEST}; nothing was loaded. Correct <size>, or remove it: then the image is measured."
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
        x1, y1, x2, y2 = (_number(text_of(obj, f"bndbox/{corner}")) for corner in _CORNERS)
    except ValueError as error:
        raise ValueError(
            f"{line_of(*at)}: an object has no box of four numbers up to {_FARTHEST} (xmin, ymin, xmax, "
            "ymax); nothing was loaded. Save the annotation again."
        ) from error
    width, height = x2 - x1 + base, y2 - y1 + base
    return {
        "category_id": ids.get(name, name),
        "bbox": [x1 - base, y1 - base, width, height],
        "area": width * height,
        "iscrowd": 0,
        "difficult": int(text_of(obj, "difficult") == "1"),
    }


def _number(text: str) -> float:
    """Return a number of pixels.

    Raises:
        ValueError: the text is none, or none that an image has.
    """
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not abs(number) <= _FARTHEST:
        raise ValueError(f"{brief(text)} is no number of pixels")
    return number


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
    try:
        data = read_regular(file, limit=_LARGEST_FILE)
    except NotAFileError as error:
        raise _unreadable(file, error) from error
    declared = _DECLARED.match(data)
    try:
        return decode_text(data, declared=declared and declared.group(1).decode())
    except ValueError as error:
        raise ValueError(
            f"{file}:1: this is not text in its encoding ({error}); nothing was loaded. Save it as "
            'UTF-8, or declare its encoding in the first line: <?xml version="1.0" encoding="...".'
        ) from error


def _unreadable(file: Path, error: NotAFileError) -> ValueError:
    return ValueError(
        f"{file} cannot be read as an annotation: {error}; nothing was loaded. Restore it, or remove "
        "its name from the list."
    )


def _missing(file: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"there is no {file}, which the list of images names; nothing was loaded. Restore it, or "
        "remove the name from the list."
    )
