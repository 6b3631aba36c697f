"""File cache of features, keyed by everything they depend on and memory-mapped.

    <key>.npy           float32 (N, D)
    <key>.json          the facts whose SHA-256 is the key, and a checksum of the features
    <key>.ROWS.part     features that are being computed; ROWS of them are safely on disk

A reader finds all of a file or nothing, and checks its shape, its length and its checksum: a damaged
one is computed again. Of jobs that need the same file at the same time one computes it and the others
wait; if it is killed, the next continues its part. Files not read for longest are deleted once the
folder is larger than LOWBIT_CACHE_GB (default 64); processes that mapped one keep it. The folder can
be deleted at any time.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from lowbit.common.atomic_file import atomic, sync_folder
from lowbit.common.file_lock import exclusive_lock, lock_if_free
from lowbit.common.input_files.environment import cache_bytes

_SYNC = 15.0  # s of computing that a kill may cost
_BLOCK, _BLOCKS = 2**16, 256  # bytes, and how many of a larger file are part of its checksum
_ROW = np.dtype("<f4")

_logger = logging.getLogger(__name__)


class FeatureCache:
    """Look up features by the facts they depend on, and compute missing ones.

    Args:
        folder: created when needed.
        facts: common to all features of this object.

    Raises:
        ValueError: LOWBIT_CACHE_GB is not a number.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts, self.limit = folder, dict(facts), cache_bytes()

    def get(self, facts: Mapping[str, Any], compute: Callable[[int], Iterator[Tensor]]) -> Tensor:
        """Return features (N, D) on the CPU, mapped from their file.

        Args:
            facts: specific to these features, including `count`, their N.
            compute: yields them from a row on, in order, batch by batch; called if there is no file.
        """
        known = {**self.facts, **facts}
        text = json.dumps(known, sort_keys=True, indent=1)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
        found, _ = _open(path, known["count"])
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(path.with_suffix(".lock"), path.name):
            found, damage = _open(path, known["count"])
            if found is not None:
                return found
            if damage:
                _logger.warning("%s is damaged (%s); it is computed again.", path, damage)
            _give_way(self.folder, limit=self.limit)
            _write(path, compute, known)
            found, damage = _open(path, known["count"])
            if found is None:
                raise OSError(f"{path} was written and cannot be read back: {damage}")
        _logger.info("computed %s (%.1f MB)", path, found.nbytes / 1e6)
        _give_way(self.folder, limit=self.limit)
        return found


def _open(path: Path, count: int) -> tuple[Tensor | None, str]:
    """Return a file's features, marked as just read; or None and what is wrong with the file."""
    try:
        with path.open("rb") as file:
            if damage := _damage(file, path, count):
                return None, damage
        with contextlib.suppress(PermissionError):  # another user's
            os.utime(path)
        # Copy-on-write: torch requires writable memory, and the file must not change.
        return torch.from_numpy(np.load(path, mmap_mode="c")), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, error.strerror or str(error)


def _damage(file: BinaryIO, path: Path, count: int) -> str:
    """Say what is wrong with a file of features; nothing is mapped before its length is known."""
    try:
        width = _read_header(file, count)
    except ValueError as error:
        return str(error)
    length = os.fstat(file.fileno()).st_size
    if length != (expected := file.tell() + count * width):
        return f"it has {length} bytes instead of {expected}"
    try:
        known = json.loads(path.with_suffix(".json").read_bytes())
        # Without one it was written before there were checksums.
        checksum = known.get("checksum")
    except (OSError, ValueError, AttributeError):
        return "the file beside it, which has its checksum, cannot be read"
    return "" if checksum in (None, _checksum(file)) else "its checksum does not match"


def _read_header(file: BinaryIO, count: int) -> int:
    """Read the header of `count` rows; return the bytes of a row."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is not a NumPy file of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 2 or shape[0] != count or fortran_order or dtype != _ROW:
        raise ValueError(f"it has {dtype} {shape} instead of {_ROW} ({count}, D)")
    return shape[1] * _ROW.itemsize


def _checksum(file: BinaryIO) -> int:
    """Return the CRC-32 of a file, of a large one of evenly spaced blocks, the last among them."""
    handle, length = file.fileno(), os.fstat(file.fileno()).st_size
    starts = range(0, length, max(_BLOCK, length // _BLOCKS))
    crc = 0
    for start in (*starts, max(0, length - _BLOCK)):
        crc = zlib.crc32(os.pread(handle, _BLOCK, start), crc)
    return crc


def _write(
    path: Path, compute: Callable[[int], Iterator[Tensor]], facts: Mapping[str, Any]
) -> None:
    """Compute a file, continuing what a killed job left; the caller holds its lock."""
    for left in path.parent.glob(f".{path.stem}.*"):  # of a killed job
        left.unlink(missing_ok=True)
    part, rows = _part(path, facts["count"])
    if rows:
        _logger.info("continuing %s with row %d", path.name, rows)
    with part.open("r+b" if rows else "w+b") as file:
        if rows:
            width = _read_header(file, facts["count"])
            file.seek(rows * width, os.SEEK_CUR)
            file.truncate()
        synced = time.monotonic()
        for batch in compute(rows):
            features = batch.float().cpu().contiguous().numpy().astype(_ROW, copy=False)  # (B, D)
            if not rows:
                shape = (facts["count"], features.shape[1])
                header = {"descr": _ROW.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(features.tobytes())
            rows += len(features)
            if time.monotonic() - synced > _SYNC:
                _sync(file)
                part = part.rename(_part_name(path, rows))
                synced = time.monotonic()
        assert rows == facts["count"], f"{rows} features were computed for {facts['count']} images"
        _sync(file)
        with atomic(path.with_suffix(".json")) as sidecar:
            text = json.dumps({"checksum": _checksum(file), "facts": facts}, indent=1)
            sidecar.write(text.encode())
    part.replace(path)
    sync_folder(path.parent)


def _part(path: Path, count: int) -> tuple[Path, int]:
    """Return the file to write to, and how many rows of it are good; others are removed."""
    found = {}
    for part in path.parent.glob(f"{path.stem}.*.part"):
        with contextlib.suppress(ValueError), part.open("rb") as file:
            rows = int(part.suffixes[0][1:])
            whole = rows * _read_header(file, count) + file.tell()
            if 0 < rows < count and part.stat().st_size >= whole:
                found[rows] = part
                continue
        part.unlink()
    if not found:
        return _part_name(path, 0), 0
    rows = max(found)
    return found[rows], rows


def _part_name(path: Path, rows: int) -> Path:
    return path.with_suffix(f".{rows}.part")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _give_way(folder: Path, *, limit: float) -> None:
    """Delete what was not read for longest until `folder` holds no more than `limit` bytes.

    What jobs left unfinished counts; what a job is computing just now is spared.
    """
    found: dict[str, list[os.stat_result]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name.lstrip(".").partition(".")[0]].append(entry.stat())
    kept = 0
    for key, stats in sorted(found.items(), key=lambda item: -max(s.st_mtime for s in item[1])):
        kept += sum(stat.st_size for stat in stats)
        if kept > limit:
            with lock_if_free(folder / f"{key}.lock") as free:
                if free:
                    for path in [*folder.glob(f"{key}.*"), *folder.glob(f".{key}.*")]:
                        path.unlink(missing_ok=True)


def state_sha256(model: nn.Module) -> str:
    """Return the hash of all parameters and buffers: including a quantized network's ranges.

    Example:
        >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> state_sha256(a) == state_sha256(b)
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
