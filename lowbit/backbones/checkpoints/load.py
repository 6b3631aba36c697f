"""Load and save backbones: recognize a file's layout, then load all of it or nothing.

A backbone that silently failed to load scores like a random one, and nothing later detects it. So
every tensor of the network must be found in the file, with its shape, or nothing is loaded; and a
file tensor that belongs inside the network but has no counterpart is an error too.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lowbit.backbones.checkpoints.conversions.find import find
from lowbit.backbones.checkpoints.file_formats.checksums import with_checksums
from lowbit.backbones.checkpoints.file_formats.refusals import CheckpointError
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight
from lowbit.backbones.checkpoints.guess_network import guess, signature
from lowbit.backbones.checkpoints.layouts import detector_keys
from lowbit.backbones.checkpoints.load_report import (
    LoadReport,
    describe,
    refusal,
    shortened,
    undecided,
)
from lowbit.backbones.checkpoints.read_file import META_KEY, Contents, read, write
from lowbit.backbones.networks.registry import create_backbone
from lowbit.common.text import printable

FORMAT = "lowbit-bench/1"
_QUANTIZER = (".w_quant.", ".a_quant.")


def save_backbone(path: str | Path, backbone: nn.Module, meta: Mapping[str, Any]) -> str:
    """Write a backbone and its metadata; return the file's SHA-256.

    The file is complete or absent, never half-written. It is loadable without executing code:
    `.safetensors`, or else a `weights_only` pickle. Quantizer state is omitted, so that any timm or
    torchvision code can load the weights. Checksums in the metadata let `load_backbone` see damage.

    Args:
        path: the suffix chooses the format.
        backbone: from `create_backbone`; may be quantized.
        meta: any JSON, at least the texts `method` and `data`.
    """
    path = Path(path)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in backbone.state_dict().items()
        if not any(part in f".{name}" for part in _QUANTIZER)
    }
    meta = {"format": FORMAT, "architecture": backbone.architecture, **meta}
    text = json.dumps(with_checksums(meta, state), sort_keys=True)
    if path.suffix == ".safetensors":
        return write(path, safetensors_bytes(state, metadata={META_KEY: text}))
    buffer = io.BytesIO()  # not the file itself, whose temporary name torch would store
    torch.save({"model": state, META_KEY: text}, buffer)
    return write(path, buffer.getvalue())


def load_backbone(
    path: str | Path,
    architecture: str | None = None,
    *,
    prefix: str | None = None,
    allow_partial: bool = False,
) -> tuple[nn.Module, LoadReport]:
    """Build the network a file belongs to and load it, all or nothing.

    Args:
        path: a file of this suite or of any project in `lowbit.backbones.checkpoints.layouts.LAYOUTS`.
        architecture: network name, which is used if its tensors match; None uses the name in the
            file, or without one the only network whose tensors all match.
        prefix: container and prefix of the copy to take, such as `state_dict.encoder_k`, where a file
            holds several (`LoadReport.copies`) or has no known layout; None: as its layout says.
        allow_partial: load what matches, if anything does, and record it in the report.

    Returns:
        The backbone in train mode, and the report.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: unreadable, architecture unknown, a full detector, or not every backbone
            tensor matched.
        ValueError: unknown network.
    """
    report, usable = loadable(read(path), architecture, prefix=prefix, allow_partial=allow_partial)
    backbone = create_backbone(report.architecture)
    backbone.load_state_dict({**backbone.state_dict(), **usable})
    return backbone, report


def loadable(
    contents: Contents,
    architecture: str | None = None,
    *,
    prefix: str | None = None,
    allow_partial: bool = False,
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return what `load_backbone` would load of a file, by our names, with the report.

    Raises:
        CheckpointError: see `load_backbone`.
        ValueError: unknown network.
    """
    detector = detector_keys(contents.containers)
    if detector:
        raise CheckpointError(
            f"{contents.shown} holds a full detector ({shortened(detector)}); nothing was loaded. "
            "Its backbone was trained with that detector's head: give the checkpoint it started "
            "from, or save its backbone's tensors in a separate file."
        )
    report, found = examine(contents, architecture, prefix=prefix)
    if not report.complete and not (allow_partial and report.matched):
        raise CheckpointError(refusal(report, contents))
    left_out = {*report.mismatched, *report.unfit}
    usable = {k: v for k, v in found.items() if k not in left_out}
    nonfinite = [k for k, v in usable.items() if v.is_floating_point() and not v.isfinite().all()]
    if nonfinite:
        raise CheckpointError(
            f"{contents.shown} holds NaN or infinity in {shortened(nonfinite)}; nothing was loaded. "
            "The run that wrote it diverged: use an earlier checkpoint."
        )
    return report, usable


def examine(
    contents: Contents,
    architecture: str | None = None,
    *,
    prefix: str | None = None,
    nearest: bool = False,
) -> tuple[LoadReport, dict[str, Tensor | NoWeight]]:
    """Compare a file with a network without loading it.

    Args:
        contents: of the file.
        architecture: as in `load_backbone`.
        prefix: as in `load_backbone`.
        nearest: if the network is ambiguous, use the nearest one.

    Returns:
        The report, and the tensors found under our names.

    Raises:
        CheckpointError: the network is ambiguous, or differs from the one stated in the file, whose
            tensors are not alike.
    """
    stated = contents.meta.get("architecture")
    name = architecture or stated
    guessed = name is None
    if name is None:
        told = guess(contents.containers, prefix=prefix)
        if len(told.complete) != 1 and not nearest:
            raise CheckpointError(undecided(contents, told))
        name, m = told.nearest, told.match
    else:
        m = find(contents.containers, name, signature(name).shapes, prefix=prefix)
    if stated not in (None, name) and not m.complete:
        raise CheckpointError(
            f"{contents.shown} holds a {printable(stated)}, but {architecture} was requested; "
            f"nothing was loaded. Omit the architecture, or set it to {printable(stated)}."
        )
    named = architecture is not None
    return describe(contents, name, m, guessed=guessed, named=named), m.found
