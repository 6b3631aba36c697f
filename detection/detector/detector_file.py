"""Detector files: weights and the metadata to rebuild the detector, with strict loading.

A file is `{"format", "model": state dict, "meta": plain data}`, loadable with `weights_only=True` and
written to a temporary name, synced and renamed, so that a reader never sees a partial file.
"""

import hashlib
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.yaml_values import parse
from lowbit.common.text import printable

FORMAT = "lowbit-detector-1"


def write_atomically(path: str | Path, payload: Any) -> str:
    """Save `payload` with torch atomically to `path`; return the file's SHA-256."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getbuffer()
    with atomic(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def save_detector(path: str | Path, detector: nn.Module, meta: dict[str, Any]) -> str:
    """Write a detector file; return its SHA-256.

    Args:
        path: the file to write.
        detector: whose state dict is written.
        meta: plain data: engine, architecture, method, precision, policy, classes, recipe, ...
    """
    state = detector.state_dict()  # not a plain dictionary: it carries module versions
    for name, tensor in state.items():
        state[name] = tensor.cpu()
    return write_atomically(path, {"format": FORMAT, "model": state, "meta": meta})


def read_detector(path: str | Path, *, engine: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Read a detector file that `engine` trained; return its state dict and its meta with `sha256`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a detector file, or was written by another engine.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no detector file {path}; nothing was loaded. Train one with method fp first, "
            "and give the path of its detector.pth."
        )
    data = path.read_bytes()
    try:
        content = load_checked(data)
    except Exception as error:  # damaged bytes can raise any
        raise ValueError(
            f"{path.name} cannot be read as a detector ({printable(str(error))}); nothing was loaded. "
            "Give the detector.pth of a finished detection job."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path.name} is not a detector file of this suite; nothing was loaded. Give the "
            "detector.pth of a finished detection job; a backbone file belongs under `checkpoint`."
        )
    meta = content["meta"]
    if meta["engine"] != engine:
        raise ValueError(
            f"{path.name} was trained by engine {meta['engine']!r}, but the engine here is "
            f"{engine!r}; nothing was loaded. The two build different detectors: set "
            f"`engine: {meta['engine']}`, or train the detector again with {engine}."
        )
    return content["model"], {**meta, "sha256": hashlib.sha256(data).hexdigest()}


def check_relu(path: str | Path, meta: dict[str, Any], fpn_relu: bool) -> None:
    """Refuse a detector whose heads were trained on other features, which no weight shows.

    Args:
        path: the detector file.
        meta: its metadata.
        fpn_relu: whether a ReLU between pyramid and heads is wanted.

    Raises:
        ValueError: the file's detector differs.
    """
    if "recipe" in meta:
        trained = meta["recipe"]["fpn_relu"]
    else:
        trained = parse(meta["config"]).value["MODEL"]["LOWBIT"]["FPN_RELU"]
    if trained != fpn_relu:
        raise ValueError(
            f"{path} holds a detector trained with fpn_relu {str(trained).lower()}, but "
            f"{str(fpn_relu).lower()} was requested; nothing was loaded. Its heads only work on the features they were "
            "trained on: give both the same fpn_relu (in a configuration MODEL.LOWBIT.FPN_RELU)."
        )


def restore_detector(detector: nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Load `state` into `detector`; every tensor must match, or nothing is loaded.

    Only the norms' batch counters may be in one and not the other: frozen norms have none.

    Raises:
        ValueError: names or shapes differ.
    """
    own = detector.state_dict()
    counters = {name for name in own.keys() ^ state.keys() if name.endswith("num_batches_tracked")}
    versions = getattr(
        state, "_metadata", None
    )  # module versions, which torch needs to read old files
    kept = ((name, tensor) for name, tensor in state.items() if name not in counters)
    state = OrderedDict(kept) | {name: own[name] for name in counters & own.keys()}
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    misshapen = sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
    if missing or unexpected or misshapen:
        found = [
            f"{len(names)} {what} (as {names[0]})"
            for what, names in (
                ("missing", missing),
                ("left over", unexpected),
                ("of another shape", misshapen),
            )
            if names
        ]
        raise ValueError(
            f"{source} does not fit this detector: of {len(own)} tensors, {', '.join(found)}; "
            "nothing was loaded. Give the recipe the detector was trained with: same architecture, "
            "features, fpn_channels, head_convs and anchors."
        )
    state._metadata = versions
    detector.load_state_dict(state)
