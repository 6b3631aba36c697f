"""File cache of features, keyed by everything they depend on and memory-mapped.

A folder of `<key>.npy`, float32 (N, D), each with a `<key>.json`, the facts whose SHA-256 is the key.
A file is written under another name, synced and renamed, so that a reader finds all of it or
nothing; of jobs that need the same file at the same time one computes it and the others wait. Files
not read for longest are deleted once the folder is larger than LOWBIT_CACHE_GB (default
64); processes that mapped one keep it. The folder can be deleted at any time.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowbit.common.atomic_file import atomic
from lowbit.common.file_lock import exclusive_lock

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
        self.folder, self.facts, self.limit = folder, dict(facts), _limit()

    def get(self, facts: Mapping[str, Any], compute: Callable[[], Iterator[Tensor]]) -> Tensor:
        """Return features (N, D) on the CPU, mapped from their file.

        Args:
            facts: specific to these features, including `count`, their N.
            compute: yields them in order, batch by batch; called if there is no file.
        """
        known = {**self.facts, **facts}
        text = json.dumps(known, sort_keys=True, indent=1)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
        found = _mapped(path)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(path.with_suffix(".lock"), path.name):
            if (found := _mapped(path)) is not None:
                return found
            with atomic(path.with_suffix(".json")) as file:
                file.write(text.encode())
            with atomic(path) as file:
                _write_rows(file, compute(), known["count"])
            found = _mapped(path)
        _logger.info("computed %s (%.1f MB)", path, found.nbytes / 1e6)
        _give_way(self.folder, limit=self.limit)
        return found


def _mapped(path: Path) -> Tensor | None:
    """Return a file's features and mark it as just read; None if there is no file."""
    try:
        os.utime(path)
        # Copy-on-write: torch requires writable memory, and the file must not change.
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except FileNotFoundError:
        return None


def _give_way(folder: Path, *, limit: float) -> None:
    """Delete the files not read for longest until `folder` holds no more than `limit` bytes."""
    kept = 0
    with os.scandir(folder) as entries:
        files = [(e.stat(), Path(e)) for e in entries if e.name.endswith(".npy")]
    for stat, file in sorted(files, key=lambda found: -found[0].st_mtime):
        kept += stat.st_size
        if kept > limit:
            for suffix in (".npy", ".json", ".lock"):
                file.with_suffix(suffix).unlink(missing_ok=True)


def _limit() -> float:
    text = os.environ.get("LOWBIT_CACHE_GB", "64")
    try:
        return float(text) * 1e9
    except ValueError:
        raise ValueError(
            f"LOWBIT_CACHE_GB is {text!r}, which is not a number; no features were computed. "
            "Set it to the gigabytes that cached features may use."
        ) from None


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


def _write_rows(file: Any, batches: Iterator[Tensor], count: int) -> None:
    written = 0
    for batch in batches:
        rows = batch.float().cpu().contiguous().numpy()  # (B, D)
        if not written:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, rows.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(rows.astype("<f4", copy=False).tobytes())
        written += len(rows)
    assert written == count, f"{written} features were computed for {count} images"
