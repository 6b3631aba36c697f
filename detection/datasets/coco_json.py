"""COCO's JSON: read it, refuse values of another type, and find the line of an entry."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lowbit.common.encoded_text import decode_text
from lowbit.common.input_files.file_names import is_inside
from lowbit.common.input_files.regular_file import read_regular
from lowbit.common.text import brief, counted, printable
from lowbit.data.decoding import MAX_PIXELS

_SHOWN = 5  # values of one field that a message lists
_LARGEST_FILE = 16 * 10**9  # bytes; COCO's have half a gigabyte, Objects365's six
_FARTHEST = 2**20  # pixels: of a coordinate, and of an image's side
_LARGEST_AREA = _FARTHEST**2
_LARGEST_ID = 2**63  # of an image or a class: what others hold in 64 bits
_MANY_DIGITS = re.compile(rb"[0-9]{1000,}")  # Python reads integers of 4,300
_SPACE = re.compile(r"[ \t\n\r]*")


def _is_integer(value: Any) -> bool:
    return type(value) is int and -_LARGEST_ID <= value < _LARGEST_ID  # and not bool


def _is_flag(value: Any) -> bool:
    return type(value) is int and value in (0, 1)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _FARTHEST


def _is_text(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_file_name(value: Any) -> bool:
    return type(value) is str and is_inside(value)


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


def _is_area(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST_AREA  # false for NaN


def _are_numbers(value: Any) -> bool:
    """Whether a list has coordinates only: one sum tells, and COCO's polygons have 40 million."""
    try:
        total = sum(map(abs, value)) if type(value) is list else math.inf
        return total < _FARTHEST or (total < math.inf and max(map(abs, value)) < _FARTHEST)
    except (TypeError, OverflowError):
        return False


def _is_box(value: Any) -> bool:
    return _are_numbers(value) and len(value) == 4 and set(map(type, value)) <= {int, float}


def _is_mask(value: Any) -> bool:
    if type(value) is list:
        return all(map(_are_numbers, value))
    if type(value) is not dict:
        return False
    counts, size = value.get("counts"), value.get("size")
    if not (type(size) is list and len(size) == 2 and all(map(_is_side, size))):
        return False
    if type(counts) is str:
        return size[0] * size[1] <= MAX_PIXELS
    # Runs that do not fill the mask would be written behind its end.
    runs = type(counts) is list and set(map(type, counts)) <= {int} and min(counts, default=0) >= 0
    return runs and sum(counts) == size[0] * size[1] <= MAX_PIXELS


_Rule = tuple[Callable[[Any], bool], str]
_REQUIRED: dict[str, dict[str, _Rule]] = {
    "images": {
        "id": (_is_integer, "an integer of 64 bits"),
        "file_name": (_is_file_name, "a file name inside the folder of images, with / in it"),
        "height": (_is_side, f"a positive integer up to {_FARTHEST}"),
        "width": (_is_side, f"a positive integer up to {_FARTHEST}"),
    },
    "annotations": {
        "id": (_is_id, "an integer"),  # or text: evaluation numbers annotations anew
        "image_id": (_is_integer, "an integer of 64 bits"),
        "category_id": (_is_integer, "an integer of 64 bits"),
        "bbox": (_is_box, f"a list of four numbers up to {_FARTHEST}"),
    },
    "categories": {"id": (_is_integer, "an integer of 64 bits"), "name": (_is_text, "a name")},
}
_OPTIONAL: dict[str, dict[str, _Rule]] = {
    "images": {},
    "annotations": {
        "area": (_is_area, "a number of pixels"),
        "iscrowd": (_is_flag, "0 or 1"),
        "segmentation": (_is_mask, "polygons, or a run-length encoding that fills its size"),
        "keypoints": (_are_numbers, "a list of numbers"),
    },
    "categories": {},
}
"""What an entry has to have, and may have or have as null."""


def read_json(file: Path) -> dict[str, Any]:
    """Read annotations in COCO's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, an entry lacks a required field, or a value has another type than
            COCO's; the message has the line of the first few of each field.
    """
    try:
        return _read(file)
    except (
        RecursionError
    ) as error:  # of the parser, or of what looks for a line further down the stack
        raise ValueError(
            f"{file} is not JSON of annotations: it is nested too deeply; nothing was loaded. Export "
            "the annotations again."
        ) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        data = read_regular(file, limit=_LARGEST_FILE)
        content = json.loads(data)
    except ValueError as error:
        said = printable(str(error))
        if "digits" in said and (found := _MANY_DIGITS.search(data)):
            line = data.count(b"\n", 0, found.start()) + 1
            said = f"line {line} has a number of {len(found[0]):,} digits"
        raise ValueError(
            f"{file} is not JSON ({said}); nothing was loaded. Export the annotations again."
        ) from error
    del data
    for section in _REQUIRED:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise ValueError(
                f"{file} has no list {section!r}; nothing was loaded. COCO's format has images, "
                "annotations and categories: export the annotations as COCO JSON."
            )
    wrong = [(s, *found) for s in _REQUIRED for found in _wrong_values(s, content[s])]
    if wrong:
        raise ValueError(
            f"{file} has {counted(len(wrong), 'value')} missing or not of COCO's type; nothing was "
            "loaded. Correct them, or export the annotations again:\n"
            + "\n".join(_describe(file, content, wrong))
        )
    return content


def _wrong_values(section: str, entries: list) -> Iterator[tuple[int, str]]:
    """Yield the position and the field of every wrong value; the field is empty for a whole entry."""
    required, optional = _REQUIRED[section].items(), _OPTIONAL[section].items()
    for place, entry in enumerate(entries):
        if type(entry) is not dict:
            yield place, ""
            continue
        for field, (is_right, _) in required:
            if field not in entry or not is_right(entry[field]):
                yield place, field
        for field, (is_right, _) in optional:
            value = entry.get(field)
            if value is not None and not is_right(value):
                yield place, field


def _describe(file: Path, content: dict, wrong: list[tuple[str, int, str]]) -> Iterator[str]:
    """Yield one line for each of the first wrong values of every field."""
    by_field = defaultdict(list)
    for section, place, field in wrong:
        by_field[section, field].append(place)
    text, starts = decode_text(file.read_bytes()), None
    for (section, field), places in by_field.items():
        yield f"  {field or 'entries'} of {section}: {len(places)}"
        starts = starts or _starts(text)
        for place in places[:_SHOWN]:
            at = f"{file}:{_line(text, starts[section][place], field)}: entry {place + 1} of {section}"
            entry = content[section][place]
            if not field:
                yield f"    {at} is {_short(entry)}, not an object"
                continue
            if "id" in entry:
                at += f" (id {_short(entry['id'])})"
            if field not in entry:
                yield f"    {at} has no {field}"
            else:
                wanted = (_REQUIRED[section] | _OPTIONAL[section])[field][1]
                yield f"    {at}: {field} is {_short(entry[field])}, not {wanted}"
        if len(places) > _SHOWN:
            yield f"    and {len(places) - _SHOWN} more"


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):  # nested, or an integer of thousands of digits
        text = brief(value)
    return printable(text if len(text) <= 60 else f"{text[:56]} ...")


def _line(text: str, start: int, field: str) -> int:
    """Return the line of a field of the entry at a position, or else of the entry."""
    _, end = json.JSONDecoder().raw_decode(text, start)
    for name in (field, "id"):
        if found := re.compile(rf'"{name}"\s*:').search(text, start, end):
            return text.count("\n", 0, found.start()) + 1
    return text.count("\n", 0, start) + 1


def _starts(text: str) -> dict[str, list[int]]:
    """Return where each entry of each list of the file begins."""
    decode = json.JSONDecoder().raw_decode
    starts: dict[str, list[int]] = {}
    at = _skip(text, 0)
    while text[at] != "}":
        name, at = decode(text, _skip(text, at + 1))  # after { or ,
        at = _skip(text, _skip(text, at) + 1)  # after :
        if name not in _REQUIRED:
            at = _skip(text, decode(text, at)[1])
            continue
        starts[name] = []
        while text[at] != "]":
            at = _skip(text, at + 1)  # after [ or ,
            if text[at] != "]":
                starts[name].append(at)
                at = _skip(text, decode(text, at)[1])
        at = _skip(text, at + 1)
    return starts


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


class Places:
    """Find the line of an entry in a JSON file; the file is read on the first call.

    Args:
        file: annotations in COCO's format.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, section: str, entry_id: Any) -> str:
        """Return file and line of the entry with an id; all lines if the id is used twice."""
        text = _text(self.file, self.file.stat().st_mtime_ns)
        written = r'"id"\s*:\s*' + re.escape(json.dumps(entry_id)) + r"(?![\w.])"
        lines = [
            str(text.count("\n", 0, match.start()) + 1)
            for match in re.finditer(written, text)
            if _section(_object_around(text, match.start()), entry_id) == section
        ]
        return f"{self.file}:{','.join(lines)}" if lines else str(self.file)


def _object_around(text: str, at: int) -> dict[str, Any]:
    """Return the innermost object that contains a position."""
    start = at
    while (start := text.rfind("{", 0, start)) >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):  # a brace in a string
            continue
        if end > at:
            return found
    return {}


def _section(entry: dict[str, Any], entry_id: Any) -> str | None:
    """Return the section whose required fields an entry with this id has."""
    if entry.get("id") != entry_id:
        return None
    return next((name for name, fields in _REQUIRED.items() if fields.keys() <= entry.keys()), None)


@lru_cache(maxsize=1)
def _text(file: Path, mtime_ns: int) -> str:
    """Return a file's text; `mtime_ns` changes with the file."""
    return decode_text(file.read_bytes())
