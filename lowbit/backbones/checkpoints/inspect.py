"""Describe a checkpoint, whether or not it can be loaded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lowbit.backbones.checkpoints.batch_norm_state import norm_state
from lowbit.backbones.checkpoints.file_formats.refusals import CheckpointError
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight
from lowbit.backbones.checkpoints.load import examine, loadable
from lowbit.backbones.checkpoints.read_file import read


def inspect_checkpoint(
    path: str | Path, architecture: str | None = None, *, prefix: str | None = None
) -> dict[str, Any]:
    """Return a description of a file's contents as JSON.

    If the network is ambiguous, the nearest one is reported, if any tensor matches. `loads` is
    whether `load_backbone` accepts the file, `refusal` the reason if not. `unused` counts tensors
    outside the backbone by name prefix.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is damaged, contains code, or has no tensors.
        ValueError: unknown network.
    """
    contents = read(path)
    names = [name for tensors in contents.containers.values() for name in tensors]
    try:
        report, found = loadable(contents, architecture, prefix=prefix)
        refusal = None
    except CheckpointError as error:
        report, found = examine(contents, architecture, prefix=prefix, nearest=True)
        refusal = str(error)
    return {
        "path": report.path,
        "size": contents.size,
        "sha256": report.sha256,
        "layout": report.format,
        "architecture": report.architecture if report.matched else None,
        "guessed": report.guessed,
        "prefix": report.prefix,
        "copies": list(report.copies),
        "loads": refusal is None,
        "refusal": refusal,
        "matched": report.matched,
        "total": report.total,
        "share": report.share,
        "missing": list(report.missing),
        "mismatched": list(report.mismatched),
        "unfit": dict(report.unfit),
        "extra": list(report.extra),
        "unused": _groups(names, report.unused),
        "batch_norm": str(norm_state(_fit(found))),
        "warnings": list(report.warnings),
        "meta": report.meta,
    }


def _fit(found: Mapping[str, Tensor | NoWeight]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _groups(names: Iterable[str], unused: Sequence[str]) -> dict[str, int]:
    """Count unused names by their shortest prefix that no used name shares."""
    shared = {""}
    for name in set(names) - set(unused):
        parts = name.split(".")
        shared |= {".".join(parts[:depth]) for depth in range(1, len(parts))}
    counts = Counter(_group(name, shared) for name in unused)
    return dict(counts.most_common())


def _group(name: str, shared: set[str]) -> str:
    parts = name.split(".")
    depth = next(d for d in range(1, len(parts) + 1) if ".".join(parts[:d]) not in shared)
    return name if depth == len(parts) else ".".join(parts[:depth]) + ".*"
