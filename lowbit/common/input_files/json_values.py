"""Read JSON of others: bounded before it is parsed, and unambiguous."""

import json
import math
import re
from typing import Any

import numpy as np

from lowbit.common.text import brief, counted, printable, size

MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]++|\\[\s\S])*+["\\]?')  # or what begins as one and does not end
_BLOCK = 1 << 20  # bytes
_STEP = np.zeros(256, np.int8)
_STEP[[*b"[{"]], _STEP[[*b"]}"]] = 1, -1


def parse_json(data: bytes, what: str, *, limit: int, values: int, depth: int = MAX_DEPTH) -> Any:
    """Return the content of a JSON text that all parsers read alike.

    Size, number of values and nesting are counted in the bytes, so that a text with more of them costs
    no more memory than itself twice. A text within them takes about 180 bytes a value, and up to five
    times its size.

    Args:
        data: its bytes.
        what: the file, for the message.
        limit: of its size, bytes.
        values: most values in it, counting lists, mappings and their keys too.
        depth: most lists and mappings inside each other.

    Raises:
        ValueError: it is not JSON, has more than it may, or has NaN, an infinity, or a key twice.
    """
    try:
        if len(data) > limit:
            raise ValueError(f"it is longer than {size(limit)}")
        _check_structure(data, values, depth)
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_mapping,
            parse_float=_finite,
            parse_int=_integer,
            parse_constant=_no_number,
        )
    except ValueError as error:  # not UTF-8, not JSON, or one of ours
        raise ValueError(f"{what} cannot be read: {printable(str(error))}") from error


def count_values(data: bytes) -> int:
    """Count the values of a JSON text without parsing it: lists, mappings and their keys too.

    Example:
        >>> count_values(b'{"a": [1, 2, "[,"], "b": null}')
        8
    """
    return _count(_STRING.sub(b"", data))


def _count(bare: bytes) -> int:
    """Count the values of a text whose strings were left out."""
    return sum(map(bare.count, (b",", b":", b"[", b"{"))) + 1


def _check_structure(data: bytes, values: int, depth: int) -> None:
    """Refuse too many values or too deep nesting; what is not JSON is left to the parser."""
    bare = _STRING.sub(b"", data)
    if (found := _count(bare)) > values:
        raise ValueError(f"it has {found:,} values, where {values:,} are allowed")
    level = 0
    for start in range(0, len(bare), _BLOCK):
        block = np.frombuffer(bare, np.uint8, min(_BLOCK, len(bare) - start), start)
        levels = np.cumsum(_STEP[block], dtype=np.int64) + level
        if levels.max() > depth:
            raise ValueError(f"it is nested too deeply: more than {counted(depth, 'level')}")
        level = int(levels[-1])


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is given twice")
    return mapping


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError(f"{brief(text[:20])}... is a number of {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
