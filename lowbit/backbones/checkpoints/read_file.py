"""Read checkpoints without running code in them; write files atomically."""

import hashlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from lowbit.backbones.checkpoints.bare_names import bare_names
from lowbit.common.atomic_file import atomic

META_KEY = "lowbit_bench"  # where our files store their metadata

_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # torch.save before 1.6
_DEPTH = 6  # containers inside containers; VISSL's has four
_NOT_WEIGHTS = ("optimizer", "optim", "scaler", "lr_sched", "scheduler", "loss")

# Settings and logs that training code stores with the weights. They are read as placeholders:
# none of their own code is imported or run. Any other class in a pickle refuses the file.
_BAGGAGE = (
    "argparse.",
    "pathlib.",
    "numpy.",
    "typing.",
    "omegaconf.",
    "mmengine.",
    "mmcv.",
    "lightning.",
    "pytorch_lightning.",
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "set", "str")),
)


class CheckpointError(ValueError):
    """Raised when a checkpoint was not loaded; the message gives the reason and a remedy."""


@dataclass(frozen=True)
class Contents:
    """Contents of a checkpoint file.

    Attributes:
        path: the file.
        size: bytes.
        sha256: of its bytes.
        containers: where in the file (`""`, `state_dict`, `teacher`, ...) -> tensors by their
            bare names (`bare_names`); the online network before the momentum network.
        meta: metadata in files of this suite; empty for files of other projects.
    """

    path: Path
    size: int
    sha256: str
    containers: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def read(path: str | Path) -> Contents:
    """Read any file that contains named tensors.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is damaged, contains code, or has no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; nothing was loaded. Check the path, or run the "
            "pretraining recipe that creates it."
        )
    content = path.read_bytes()
    if path.suffix == ".safetensors" or content[8:9] == b"{":
        data = _guarded(path, lambda: _safetensors(path))
    elif content[:2] == b"PK" or content.startswith(_LEGACY_TORCH):
        data = _guarded(path, lambda: _torch_file(content))
    else:
        data = _guarded(path, lambda: _ArraysOnly(io.BytesIO(content), encoding="latin1").load())
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}, not named tensors; nothing was loaded. Save the "
            "network's state_dict."
        )
    containers = dict(_containers(data))
    if not containers:
        raise CheckpointError(
            f"{path} holds no named tensors (its entries: {', '.join(map(str, data)) or 'none'}); "
            "nothing was loaded. Save the network's state_dict."
        )
    text = data.get(META_KEY)
    meta = _guarded(path, lambda: dict(json.loads(text))) if isinstance(text, str) else {}
    sha256 = hashlib.sha256(content).hexdigest()
    return Contents(path, len(content), sha256, containers, meta)


def write(path: Path, content: bytes) -> str:
    """Write a file atomically; return its SHA-256."""
    with atomic(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def _guarded(path: Path, load: Callable[[], Any]) -> Any:
    """Call a loader; explain any error that a damaged or hostile file causes."""
    try:
        return load()
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of tensors ({_first_line(error)}); nothing was loaded, and "
            "no code in it was run. If you trust its source, load it with torch.load(..., "
            "weights_only=False) and save its state_dict alone."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({_first_line(error)}); nothing was loaded. It is damaged, cut "
            "short, or not a checkpoint: download or create it again."
        ) from error


def _first_line(error: Exception) -> str:
    """Return the reason in an error's text; torch puts general advice first."""
    reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return (reason.splitlines() or [type(error).__name__])[0]


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return {**(file.metadata() or {}), "model": tensors}


def _torch_file(content: bytes) -> Any:
    harmless: list[tuple[type, str]] = []
    if content[:2] == b"PK":  # the older format has neither checksums nor a list of its classes
        damaged = zipfile.ZipFile(io.BytesIO(content)).testzip()  # torch.load would not notice
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
        harmless = [
            (type("Placeholder", (_Placeholder,), {}), name)
            for name in names
            if name.startswith(_BAGGAGE)
        ]
    with torch.serialization.safe_globals(harmless):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class _Placeholder:
    """Placeholder for an object of a skipped class: accepts any pickled state and keeps none."""

    def __init__(self, *args: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...


def _latin1(text: str, encoding: str) -> bytes:
    """Encode text the way Python 2 pickles require."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Read numpy arrays in plain containers (Detectron2's `.pkl`); refuse any other class."""

    _ALLOWED = {
        "numpy.core.multiarray._reconstruct": np.empty(1).__reduce__()[0],
        "numpy.core.numeric._frombuffer": np.empty(1).__reduce_ex__(5)[0],
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self._ALLOWED[full]


def _containers(data: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping of names to tensors, online networks first."""
    yield from sorted(_walk(data, ()), key=lambda item: is_momentum(item[0]))


def is_momentum(container: str) -> bool:
    """Whether a container's name says that it holds an averaged copy of the network in training."""
    return any(word in container for word in ("target", "momentum", "ema", "teacher"))


def _walk(
    data: Mapping[Any, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    tensors = {
        k: t for k, v in data.items() if isinstance(k, str) and (t := _tensor(v)) is not None
    }
    if tensors:
        bare = bare_names(tensors)
        yield ".".join(path), {bare[name]: tensor for name, tensor in tensors.items()}
    if len(path) == _DEPTH:  # a pickle may contain itself
        return
    for key, value in data.items():
        if isinstance(value, Mapping) and not str(key).startswith(_NOT_WEIGHTS):
            yield from _walk(value, (*path, str(key)))


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None
