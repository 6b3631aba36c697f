"""The one door for checkpoints: recognize a file's layout, load it whole, or refuse.

A backbone that was silently not loaded scores like a random one, and nothing later can tell. So
every tensor of the network must be found in the file, with its shape, or nothing is loaded.
"""

import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from backbones.networks import create_backbone

FORMAT = "lowbit-bench/1"
_META_KEY = "lowbit_bench"
_QUANTIZER = (".w_quant.", ".a_quant.")

# Where a checkpoint file keeps its tensors, outermost first.
_CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "teacher", "student")

# Prefixes in front of a backbone's own names, the more specific first: where a file holds both an
# online and a momentum network, the online one is the backbone.
_PREFIXES = (
    ("lowbit-bench / torchvision / timm", ""),
    ("DataParallel", "module."),
    ("MoCo", "module.encoder_q."),
    ("MoCo", "encoder_q."),
    ("MoCo v3", "module.base_encoder."),
    ("SimSiam", "module.encoder."),
    ("SimSiam", "encoder."),
    ("SimSiam / SSQL", "module.encoder.backbone."),
    ("SSQL", "module.backbone."),
    ("BYOL", "module.online_encoder."),
    ("BYOL", "online_encoder."),
    ("BYOL", "online_encoder.net."),
    ("solo-learn / lightly / mmpretrain", "backbone."),
    ("DINO", "module.backbone."),
    ("VISSL", "_feature_blocks."),
)


class CheckpointError(ValueError):
    """A checkpoint that was not loaded; the message says why and what to do."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_backbone` found in a file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        format: layout recognized.
        architecture: network built.
        matched: backbone tensors loaded.
        total: backbone tensors there are.
        share: share of the backbone's parameters loaded, 0..1.
        missing: backbone tensors not in the file.
        mismatched: tensors whose shape differs.
        unused: tensors of the file that are no part of the backbone (heads, queues).
        meta: what the file says of itself; empty for foreign files.
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

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.matched}/{self.total} backbone tensors "
            f"({100 * self.share:.1f} % of parameters), layout {self.format}, {self.architecture}"
        )


def save_backbone(path: str | Path, backbone: nn.Module, meta: Mapping[str, Any]) -> str:
    """Write a backbone and what is known of it; return the file's SHA-256.

    The file is complete or absent, never half-written. It is loadable without executing code:
    `.safetensors`, or else a `weights_only` pickle. Quantizer state stays out, so that any timm or
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
        content = safetensors_bytes(state, metadata={_META_KEY: text})
    else:
        buffer = io.BytesIO()  # not the file itself, whose temporary name torch would store
        torch.save({"model": state, _META_KEY: text}, buffer)
        content = buffer.getvalue()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashlib.sha256(content).hexdigest()


def load_backbone(
    path: str | Path, architecture: str | None = None, *, allow_partial: bool = False
) -> tuple[nn.Module, LoadReport]:
    """Build the network a file belongs to and load it, all or nothing.

    Args:
        path: a file of this suite, or of torchvision, timm, MoCo, SimSiam, BYOL, DINO, SSQL,
            solo-learn, lightly or mmpretrain.
        architecture: network name; None takes the file's own word.
        allow_partial: load what matches and say so in the report.

    Returns:
        The backbone in train mode, and the report.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: unreadable, architecture unknown, or not every backbone tensor matched.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; nothing was loaded. Check the path, or run the "
            "pretraining recipe that makes it."
        )
    content = path.read_bytes()
    state, meta = _read(path, content)
    stated = meta.get("architecture")
    if architecture is None and stated is None:
        raise CheckpointError(
            f"{path} does not say which network it holds; nothing was loaded. Name it: "
            "architecture=resnet50, for example."
        )
    if architecture is not None and stated is not None and architecture != stated:
        raise CheckpointError(
            f"{path} holds a {stated}, but {architecture} was asked for; nothing was loaded. "
            f"Leave the architecture out, or say {stated}."
        )
    backbone = create_backbone(architecture or stated)
    wanted = backbone.state_dict()
    layout, found, unused = _match(state, wanted)
    mismatched = tuple(k for k, v in found.items() if v.shape != wanted[k].shape)
    usable = {k: v for k, v in found.items() if k not in mismatched}
    # Files from before batch normalization counted its batches lack only that counter.
    missing = tuple(k for k in wanted if k not in found and not k.endswith("num_batches_tracked"))
    parameters = {k: p.numel() for k, p in backbone.named_parameters()}
    loaded = sum(n for k, n in parameters.items() if k in usable)
    report = LoadReport(
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        format=meta.get("format", layout),
        architecture=backbone.architecture,
        matched=len(usable),
        total=len(wanted),
        share=loaded / sum(parameters.values()),
        missing=missing,
        mismatched=mismatched,
        unused=unused,
        meta=meta,
    )
    if (missing or mismatched) and not allow_partial:
        raise CheckpointError(_refusal(report, state))
    nonfinite = [k for k, v in usable.items() if v.is_floating_point() and not v.isfinite().all()]
    if nonfinite:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {_shortened(nonfinite)}; nothing was loaded. The run "
            "that wrote it diverged: use an earlier checkpoint."
        )
    backbone.load_state_dict({**wanted, **usable})
    return backbone, report


def _read(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, flat, and its own description."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                text = (file.metadata() or {}).get(_META_KEY, "{}")
        except SafetensorError as error:
            raise _unreadable(path, error) from error
        return state, json.loads(text)
    try:
        data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of tensors ({str(error).splitlines()[0]}); nothing was "
            "loaded, and no code in it was run. If you trust its source, load it with torch.load("
            "..., weights_only=False) and save its state_dict alone."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}, not named tensors; nothing was loaded. Save the "
            "network's state_dict."
        )
    text = data.get(_META_KEY)
    return _tensors(data), json.loads(text) if isinstance(text, str) else {}


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{path} cannot be read ({reason}); nothing was loaded. It is damaged, cut short, or no "
        "checkpoint: fetch or make it again."
    )


def _tensors(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the mapping of names to tensors inside a checkpoint's containers."""
    for key in _CONTAINERS:
        if isinstance(data.get(key), Mapping):
            return _tensors(data[key])
    for key in ("classy_state_dict", "base_model", "trunk"):  # VISSL nests its trunk
        if isinstance(data.get(key), Mapping):
            return _tensors(data[key])
    return {key: value for key, value in data.items() if isinstance(value, Tensor)}


def _match(
    state: dict[str, Tensor], wanted: dict[str, Tensor]
) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Return the layout under which most of `wanted` is found, what was found, and the rest."""
    best = ("unknown", {}, tuple(state))
    for layout, prefix in _PREFIXES:
        found = {k: state[prefix + k] for k in wanted if prefix + k in state}
        if len(found) > len(best[1]):
            used = {prefix + k for k in found}
            best = (layout, found, tuple(k for k in state if k not in used))
    return best


def _refusal(report: LoadReport, state: dict[str, Tensor]) -> str:
    reasons = []
    if report.missing:
        reasons.append(f"not in the file: {_shortened(report.missing)}")
    if report.mismatched:
        reasons.append(f"of another shape: {_shortened(report.mismatched)}")
    return (
        f"{report.path} matches {report.matched} of {report.total} tensors of "
        f"{report.architecture} ({100 * report.share:.1f} % of parameters); nothing was loaded. "
        f"{'; '.join(reasons)}. The file's names begin with {_shortened(list(state))}. Check the "
        "architecture, or pass --allow-partial to score it anyway."
    )


def _shortened(names, limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
