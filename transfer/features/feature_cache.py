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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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

        def alone(missing: Sequence[int], start: int) -> Iterator[tuple[Tensor]]:
            return ((batch,) for batch in compute(start))

        return self.get_all([facts], alone)[0]

    def get_all(
        self,
        several: Sequence[Mapping[str, Any]],
        compute: Callable[[Sequence[int], int], Iterator[Sequence[Tensor]]],
    ) -> list[Tensor]:
        """Return several features of the same images; those that are missing are computed in one pass.

        Args:
            several: the facts of each, as in `get`.
            compute: yields the features of which it gets the places in `several`, from a row on, in
                order, batch by batch; called if any has no file.
        """
        known = [{**self.facts, **facts} for facts in several]
        paths = [self._path(facts) for facts in known]
        found = [_open(path, facts["count"])[0] for path, facts in zip(paths, known, strict=True)]
        if all(features is not None for features in found):
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            # In one order, so that no two jobs wait for each other.
            for path in sorted(
                p for p, features in zip(paths, found, strict=True) if features is None
            ):
                locks.enter_context(exclusive_lock(path.with_suffix(".lock"), path.name))
            missing = []
            for place, path in enumerate(paths):
                if found[place] is None:  # unless another job wrote it meanwhile
                    found[place], damage = _open(path, known[place]["count"])
                    if damage:
                        _logger.warning("%s is damaged (%s); it is computed again.", path, damage)
                    if found[place] is None:
                        missing.append(place)
            if missing:
                _give_way(self.folder, limit=self.limit)
                _write([_File(paths[n], known[n]) for n in missing], partial(compute, missing))
            for place in missing:
                found[place], damage = _open(paths[place], known[place]["count"])
                if found[place] is None:
                    raise OSError(f"{paths[place]} was written and cannot be read back: {damage}")
                _logger.info("computed %s (%.1f MB)", paths[place], found[place].nbytes / 1e6)
        _give_way(self.folder, limit=self.limit)
        return found

    def _path(self, known: Mapping[str, Any]) -> Path:
        text = json.dumps(known, sort_keys=True, indent=1)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"


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


def _write(files: Sequence["_File"], compute: Callable[[int], Iterator[Sequence[Tensor]]]) -> None:
    """Compute files in one pass, continuing what a killed job left; the caller holds their locks."""
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(contextlib.closing(file))
        start = row = min(file.rows for file in files)
        for batches in compute(start):
            for file, batch in zip(files, batches, strict=True):
                if file.rows == row:  # else a killed job left this batch
                    file.add(batch)
            row += len(batches[0])
        for file in files:
            file.finish()


class _File:
    """A file of features that is being written, from the rows on that a killed job left.

    Args:
        path: of the whole file.
        facts: that go beside it.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.facts = path, facts
        for left in path.parent.glob(f".{path.stem}.*"):  # of a killed job
            left.unlink(missing_ok=True)
        self._part, self.rows = _part(path, facts["count"])
        if self.rows:
            _logger.info("continuing %s with row %d", path.name, self.rows)
        self._file = self._part.open("r+b" if self.rows else "w+b")
        if self.rows:
            width = _read_header(self._file, facts["count"])
            self._file.seek(self.rows * width, os.SEEK_CUR)
            self._file.truncate()
        self._synced = time.monotonic()

    def add(self, batch: Tensor) -> None:
        """Write the features (B, D) of the next images."""
        features = batch.float().cpu().contiguous().numpy().astype(_ROW, copy=False)
        if not self.rows:
            shape = (self.facts["count"], features.shape[1])
            header = {"descr": _ROW.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._file.write(features.tobytes())
        self.rows += len(features)
        if time.monotonic() - self._synced > _SYNC:
            _sync(self._file)
            self._part = self._part.rename(_part_name(self.path, self.rows))
            self._synced = time.monotonic()

    def finish(self) -> None:
        """Put the file in its place, with its facts beside it."""
        count = self.facts["count"]
        assert self.rows == count, f"{self.rows} features were computed for {count} images"
        _sync(self._file)
        with atomic(self.path.with_suffix(".json")) as sidecar:
            text = json.dumps({"checksum": _checksum(self._file), "facts": self.facts}, indent=1)
            sidecar.write(text.encode())
        self._part.replace(self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Close the file, whole or not."""
        self._file.close()


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
