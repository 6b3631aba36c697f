"""Checksums in the metadata of our own files, since safetensors and older formats of torch have none.

`checksums` is {"crc32": {tensor: number}, "sha256": of the rest of the metadata}. A CRC-32 covers the
type and shape of a tensor and its bytes, so that the tensor that was damaged can be named; the SHA-256
covers everything else, those numbers included. They show damage, not forgery.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight
from lowbit.common.text import printable

CHECKSUMS = "checksums"


def with_checksums(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return metadata, in JSON's types, with the checksums of tensors and of itself."""
    crc32 = {name: _crc32(tensor) for name, tensor in tensors.items()}
    plain = json.loads(json.dumps({**meta, CHECKSUMS: {"crc32": crc32}}))
    plain[CHECKSUMS]["sha256"] = _sha256(plain)
    return plain


def verify(meta: dict[str, Any], tensors: Mapping[str, Tensor | NoWeight]) -> bool:
    """Compare a file with its checksums and take them out of its metadata; return whether it has any.

    Raises:
        DamagedError: one differs.
    """
    checksums = meta.get(CHECKSUMS)
    if checksums is None:
        return False
    sha256 = checksums.pop("sha256")
    if sha256 != _sha256(meta):
        raise DamagedError("the checksum of its metadata is wrong")
    del meta[CHECKSUMS]
    for name, crc32 in checksums["crc32"].items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor) or _crc32(tensor) != crc32:
            raise DamagedError(f"the checksum of {printable(name)} is wrong")
    if len(tensors) != len(checksums["crc32"]):
        raise DamagedError("it has a tensor without checksum")
    return True


def _crc32(tensor: Tensor) -> int:
    kind = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    flat = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return zlib.crc32(flat, zlib.crc32(kind))


def _sha256(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
