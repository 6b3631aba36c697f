"""Read safetensors files: a JSON header, then the raw bytes of all tensors.

https://huggingface.co/docs/safetensors describes the format.
"""

import json
import math
from typing import Any

import torch

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.backbones.checkpoints.file_formats.stored_values import (
    DTYPES,
    NoWeight,
    Storage,
    StoredTensor,
    sizes,
)
from lowbit.common.text import printable, size

LONGEST_JSON = 4_000_000
"""Bytes of JSON that are parsed: in memory it takes up to thirty times as many."""

_DTYPES = {
    **{"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool"},
    **{"U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
}


def read_safetensors(
    data: memoryview, budget: MemoryBudget
) -> tuple[dict[str, StoredTensor | NoWeight], dict[str, Any]]:
    """Return the tensors of a file by name, and its metadata.

    Raises:
        DamagedError: the header contradicts the rest, or a tensor overlaps another.
        RefusedError: the header is too long.
    """
    length = int.from_bytes(data[:8], "little")
    if length > LONGEST_JSON and length < len(data):
        raise RefusedError(
            f"has a header of {size(length)}; at most {size(LONGEST_JSON)} are read",
            "Save the network's state_dict alone.",
        )
    if length > len(data) - 8:
        raise DamagedError("its header is cut short")
    header = json.loads(str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_unique)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise DamagedError("its metadata is no mapping")
    body, tensors, used = data[8 + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _start(item[1])):
        start, end = entry["data_offsets"]
        if start != used or end < start or end > len(body):
            raise DamagedError(f"tensor {printable(name)} does not follow the one before it")
        used, shape, code = end, sizes(entry["shape"]), entry["dtype"]
        dtype = _DTYPES.get(code) if isinstance(code, str) else None
        if dtype is None:
            tensors[name] = NoWeight(shape, f"{printable(str(code), 20)} numbers")
            continue
        count = math.prod(shape)
        if count * DTYPES[dtype].itemsize != end - start:
            raise DamagedError(f"tensor {printable(name)} has not the bytes of its shape")
        stride = torch.empty(shape, device="meta").stride() if count else (1,) * len(shape)
        storage = Storage(name, dtype, count, body[start:end])
        tensors[name] = StoredTensor(storage, 0, tuple(shape), tuple(stride), dtype)
    if used != len(body):
        raise DamagedError("bytes after its last tensor belong to none")
    return {name: tensors[name] for name in header}, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DamagedError("its header has a name twice")
    return found


def _start(entry: Any) -> tuple[int, int]:
    start, end = sizes(entry["data_offsets"])
    return start, end
