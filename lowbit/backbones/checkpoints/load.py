"""Load and save backbones: recognize a file's layout, then load all of it or nothing.

A backbone that silently failed to load scores like a random one, and nothing later detects it. So
every tensor of the network must be found in the file, with its shape, or nothing is loaded; and a
file tensor that belongs inside the network but has no counterpart is an error too.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from lowbit.backbones.checkpoints.batch_norm_state import norm_state
from lowbit.backbones.checkpoints.guess_network import guess, has_wrong_heads, signature
from lowbit.backbones.checkpoints.layouts import Match, detector_keys, match
from lowbit.backbones.checkpoints.read_file import META_KEY, CheckpointError, Contents, read, write
from lowbit.backbones.networks.registry import create_backbone

FORMAT = "lowbit-bench/1"
_QUANTIZER = (".w_quant.", ".a_quant.")


@dataclass(frozen=True)
class LoadReport:
    """What `load_backbone` found in a file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        format: recognized layout.
        architecture: network built.
        matched: number of backbone tensors loaded.
        total: number of backbone tensors.
        share: share of the backbone's parameters loaded, 0..1.
        missing: backbone tensors not in the file.
        mismatched: tensors whose shape differs.
        unused: file tensors outside the backbone (heads, queues).
        meta: metadata stored in the file; empty for files of other projects.
        extra: those of `unused` inside the backbone's modules, such as more blocks.
        guessed: whether the architecture was inferred from tensor shapes alone.
        warnings: what a user should know before trusting the numbers.
    """

    path: str
    sha256: str
    format: str
    architecture: str
    matched: int
    total: int
    share: float
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    guessed: bool = False
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        guessed = " (inferred from tensor shapes)" if self.guessed else ""
        line = (
            f"{self.path}: {self.matched}/{self.total} backbone tensors "
            f"({100 * self.share:.1f} % of parameters), layout {self.format}, "
            f"{self.architecture}{guessed}"
        )
        return "\n".join([line, *(f"warning: {warning}" for warning in self.warnings)])


def save_backbone(path: str | Path, backbone: nn.Module, meta: Mapping[str, Any]) -> str:
    """Write a backbone and its metadata; return the file's SHA-256.

    The file is complete or absent, never half-written. It is loadable without executing code:
    `.safetensors`, or else a `weights_only` pickle. Quantizer state is omitted, so that any timm or
    torchvision code can load the weights.

    Args:
        path: the suffix chooses the format.
        backbone: from `create_backbone`; may be quantized.
        meta: any JSON, at least `method` and `data`.
    """
    path = Path(path)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in backbone.state_dict().items()
        if not any(part in f".{name}" for part in _QUANTIZER)
    }
    meta = {"format": FORMAT, "architecture": backbone.architecture, **meta}
    text = json.dumps(meta, sort_keys=True)
    if path.suffix == ".safetensors":
        return write(path, safetensors_bytes(state, metadata={META_KEY: text}))
    buffer = io.BytesIO()  # not the file itself, whose temporary name torch would store
    torch.save({"model": state, META_KEY: text}, buffer)
    return write(path, buffer.getvalue())


def load_backbone(
    path: str | Path, architecture: str | None = None, *, allow_partial: bool = False
) -> tuple[nn.Module, LoadReport]:
    """Build the network a file belongs to and load it, all or nothing.

    Args:
        path: a file of this suite or of any project in `lowbit.backbones.checkpoints.layouts.LAYOUTS`.
        architecture: network name; None uses the name in the file, or without one the only network
            whose tensors all match.
        allow_partial: load what matches, if anything does, and record it in the report.

    Returns:
        The backbone in train mode, and the report.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: unreadable, architecture unknown, a full detector, or not every backbone
            tensor matched.
        ValueError: unknown network.
    """
    contents = read(path)
    detector = detector_keys(contents.containers)
    if detector:
        raise CheckpointError(
            f"{path} holds a full detector ({_shortened(detector)}); nothing was loaded. Its "
            "backbone was trained with that detector's head: give the checkpoint it started from, "
            "or save its backbone's tensors in a separate file."
        )
    report, found = examine(contents, architecture)
    whole = not (report.missing or report.mismatched or report.extra)
    if not whole and not (allow_partial and report.matched):
        raise CheckpointError(_refusal(report, contents))
    if has_wrong_heads(report.architecture, found) and not report.meta:
        raise CheckpointError(_heads_refusal(report))
    usable = {k: v for k, v in found.items() if k not in report.mismatched}
    nonfinite = [k for k, v in usable.items() if v.is_floating_point() and not v.isfinite().all()]
    if nonfinite:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {_shortened(nonfinite)}; nothing was loaded. The run "
            "that wrote it diverged: use an earlier checkpoint."
        )
    backbone = create_backbone(report.architecture)
    backbone.load_state_dict({**backbone.state_dict(), **usable})
    return backbone, report


def examine(
    contents: Contents, architecture: str | None = None, *, nearest: bool = False
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Compare a file with a network without loading it.

    Args:
        contents: of the file.
        architecture: as in `load_backbone`.
        nearest: if the network is ambiguous, use the nearest one.

    Returns:
        The report, and the tensors found under our names.

    Raises:
        CheckpointError: the network is ambiguous, or differs from the one stated in the file.
    """
    stated = contents.meta.get("architecture")
    if architecture is not None and stated is not None and architecture != stated:
        raise CheckpointError(
            f"{contents.path} holds a {stated}, but {architecture} was requested; nothing was "
            f"loaded. Omit the architecture, or set it to {stated}."
        )
    name = architecture or stated
    guessed = name is None
    if name is None:
        told = guess(contents.containers)
        if len(told.complete) != 1 and not nearest:
            raise CheckpointError(_undecided(contents, told.complete, told.nearest, told.match))
        name, m = told.nearest, told.match
    else:
        m = match(contents.containers, signature(name).shapes)
    return _report(contents, name, m, guessed=guessed), m.found


def _report(contents: Contents, architecture: str, m: Match, *, guessed: bool) -> LoadReport:
    network = signature(architecture)
    sizes = {k: network.shapes[k].numel() for k in network.parameters}
    loaded = sum(n for k, n in sizes.items() if k in m.found and k not in m.mismatched)
    warnings = (m.layout.caution if m.layout else "", norm_state(m.found).warning or "")
    return LoadReport(
        path=str(contents.path),
        sha256=contents.sha256,
        format=contents.meta.get("format", m.layout.name if m.layout else "unknown"),
        architecture=architecture,
        matched=len(m.found) - len(m.mismatched),
        total=len(network.shapes),
        share=loaded / sum(sizes.values()),
        missing=m.missing,
        mismatched=m.mismatched,
        unused=m.unused,
        meta=contents.meta,
        extra=m.extra,
        guessed=guessed,
        warnings=tuple(warning for warning in warnings if warning),
    )


def _undecided(contents: Contents, complete: tuple[str, ...], nearest: str, m: Match) -> str:
    if complete:
        return (
            f"{contents.path} matches {' and '.join(complete)}, whose tensors are alike; nothing "
            f"was loaded. Name one: architecture={complete[0]}, for example."
        )
    return (
        f"{contents.path} does not state its network and matches none of the networks "
        f"it was compared with; nothing was loaded.  {_nearest_words(nearest, m, contents)} Name the network: "
        "architecture=resnet50, for example; any timm model name works."
    )


def _nearest_words(nearest: str, m: Match, contents: Contents) -> str:
    same = len(m.found) - len(m.mismatched)
    if not same:
        names = [name for tensors in contents.containers.values() for name in tensors]
        return f"No known network has such names: {_shortened(names)}."
    extra = f" and lacks {len(m.extra)} of the file's" if m.extra else ""
    return f"The nearest is {nearest}: {same} of {same + len(m.missing) + len(m.mismatched)} tensors{extra}."


def _refusal(report: LoadReport, contents: Contents) -> str:
    reasons = []
    if report.missing:
        reasons.append(f"not in the file: {_shortened(report.missing)}")
    if report.mismatched:
        reasons.append(f"wrong shape: {_shortened(report.mismatched)}")
    if report.extra:
        reasons.append(f"in the file but not in the network: {_shortened(report.extra)}")
    told = guess(contents.containers)
    if told.nearest == report.architecture:
        names = [name for tensors in contents.containers.values() for name in tensors]
        hint = f"The file's names begin with {_shortened(names)}."
    elif told.complete:
        hint = f"It is a complete {' or '.join(told.complete)}."
    else:
        hint = _nearest_words(told.nearest, told.match, contents)
    partly = ", or set allow_partial to score it anyway" if report.matched else ""
    return (
        f"{report.path} matches {report.matched} of {report.total} tensors of "
        f"{report.architecture} ({100 * report.share:.1f} % of parameters); nothing was loaded. "
        f"{'; '.join(reasons)}. {hint} Check the architecture{partly}."
    )


def _heads_refusal(report: LoadReport) -> str:
    ours, other = ("12", "vit_small_patch16_224")
    if report.architecture != "vit_small_moco_v3":
        ours, other = ("6", "vit_small_moco_v3")
    return (
        f"{report.path} is not a ViT-S of {ours} attention heads, judging by its position "
        f"embedding; nothing was loaded. The features would be wrong without an error: set the architecture to {other}, or "
        "rewrite the file with save_backbone, which records its network."
    )


def _shortened(names, limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
