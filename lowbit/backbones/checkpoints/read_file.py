"""Read checkpoints without running code in them; write files atomically."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lowbit.backbones.checkpoints.bare_names import bare_names
from lowbit.backbones.checkpoints.file_formats import checksums
from lowbit.backbones.checkpoints.file_formats.file_bytes import read_bytes
from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.pickle_reader import PickleReader
from lowbit.backbones.checkpoints.file_formats.refusals import (
    CheckpointError,
    DamagedError,
    ForeignClassError,
    RefusedError,
)
from lowbit.backbones.checkpoints.file_formats.safetensors_file import (
    LONGEST_JSON,
    read_safetensors,
)
from lowbit.backbones.checkpoints.file_formats.stored_values import (
    NoWeight,
    StoredArray,
    StoredTensor,
)
from lowbit.backbones.checkpoints.file_formats.torch_legacy import MAGIC, read_torch_legacy
from lowbit.backbones.checkpoints.file_formats.torch_zip import read_torch_zip
from lowbit.common.atomic_file import atomic
from lowbit.common.text import brief, printable

META_KEY = "lowbit_bench"  # where our files store their metadata

_DEPTH = 6  # containers inside containers; VISSL's has four
_MOST_NAMES = 20_000  # tensors; a detector with its momentum copy has two thousand
_MOST_CONTAINERS = 100  # that can be networks: those of most tensors
_LONGEST_NAME = 500  # characters
_LONGEST_PATH = 4096
_NOT_WEIGHTS = ("optimizer", "optim", "scaler", "lr_sched", "scheduler", "loss")
_OTHERS = {b"\x1f\x8b": "a gzip file", b"\x89HDF": "an HDF5 file", b"BZh": "a bzip2 file"}

Named = dict[str, Tensor | NoWeight]


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
        verified: whether checksums in the file covered every tensor, and agreed.
    """

    path: Path
    size: int
    sha256: str
    containers: dict[str, Named]
    meta: dict[str, Any]
    verified: bool = True

    @property
    def shown(self) -> str:
        """The path as messages show it."""
        return printable(str(self.path), _LONGEST_PATH)


def read(path: str | Path) -> Contents:
    """Read any file that contains named tensors.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is damaged, contains code, has no tensors, or would take too much
            memory.
    """
    path = Path(path)
    shown = printable(str(path), _LONGEST_PATH)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint {shown}; nothing was loaded. Check the path, or run the "
            "pretraining recipe that creates it."
        )
    data = _guarded(shown, lambda: read_bytes(path))
    with ThreadPoolExecutor(1) as pool:
        sha256 = pool.submit(lambda: hashlib.sha256(data).hexdigest())
        containers, meta, verified = _guarded(shown, lambda: _contents(shown, path.suffix, data))
        return Contents(path, len(data), sha256.result(), containers, meta, verified)


def write(path: Path, content: bytes) -> str:
    """Write a file atomically; return its SHA-256."""
    with atomic(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def _guarded(shown: str, read: Callable[[], Any]) -> Any:
    """Call a reader; explain any error that a damaged or hostile file causes."""
    try:
        return read()
    except (CheckpointError, OSError):
        raise
    except RefusedError as error:
        aside = ", and no code in it was run" if isinstance(error, ForeignClassError) else ""
        raise CheckpointError(
            f"{shown} {error.what}; nothing was loaded{aside}. {error.remedy}"
        ) from error
    except Exception as error:
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        raise CheckpointError(
            f"{shown} cannot be read ({reason}); nothing was loaded. It is damaged, cut short, or "
            "not a checkpoint: download or create it again."
        ) from error


def _contents(shown: str, suffix: str, data: memoryview) -> tuple[dict[str, Named], dict, bool]:
    """Return containers, metadata, and whether checksums covered the tensors."""
    budget = MemoryBudget(len(data))
    content, verified = _parse(suffix, data, budget)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{shown} holds {_what(content)}, not named tensors; nothing was loaded. Save the "
            "network's state_dict."
        )
    containers = dict(_containers(content, budget))
    if not containers:
        texts = [printable(key, 40) for key in content if isinstance(key, str)]
        names = ", ".join(texts[:20])
        raise CheckpointError(
            f"{shown} holds no named tensors (its entries: {names or 'none'}); nothing was loaded. "
            "Save the network's state_dict."
        )
    text = content.get(META_KEY)
    meta = _metadata(text) if isinstance(text, str) else {}
    if meta:
        verified |= checksums.verify(meta, _own(content, budget))
    for key in ("method", "data"):  # which go into results
        if not isinstance(meta.get(key, ""), str):
            meta[key] = brief(meta[key])
    return containers, meta, verified


def _parse(suffix: str, data: memoryview, budget: MemoryBudget) -> tuple[Any, bool]:
    """Return the object in a file of any format, and whether the format's checksums covered it."""
    start = bytes(data[:16])
    if suffix == ".safetensors" or start[8:9] == b"{":
        tensors, metadata = read_safetensors(data, budget)
        return {**metadata, "model": tensors}, False
    if start[:2] == b"PK":
        return read_torch_zip(data, budget)
    if start.startswith(MAGIC):
        return read_torch_legacy(data, budget), False
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise RefusedError(f"is {what}", "Unpack or convert it, and save the state_dict.")
    return PickleReader(data, budget).load(), False


def _metadata(text: str) -> dict[str, Any]:
    """Parse the metadata of a file of ours.

    Raises:
        DamagedError: it is not what this suite writes.
    """
    if len(text) > LONGEST_JSON:
        raise DamagedError(f"its metadata has {len(text):,} characters")
    meta = json.loads(text)
    if not isinstance(meta, dict):
        raise DamagedError("its metadata is no mapping")
    for key in ("architecture", "format"):
        value = meta.get(key, "")
        if not isinstance(value, str) or len(value) > _LONGEST_NAME:
            raise DamagedError(f"{key} in its metadata is no short text")
    return meta


def _own(content: Mapping[Any, Any], budget: MemoryBudget) -> Named:
    """Return the tensors of a file of ours by the names in the file."""
    model = content.get("model")
    values = model.items() if isinstance(model, Mapping) else ()
    return {name: tensor for name, v in values if (tensor := _tensor(v, budget)) is not None}


def _what(content: Any) -> str:
    if isinstance(content, StoredTensor | StoredArray | NoWeight):
        return "a tensor"
    return "a list" if isinstance(content, list) else f"a {type(content).__name__}"


def _containers(content: Mapping[Any, Any], budget: MemoryBudget) -> Iterator[tuple[str, Named]]:
    """Yield every mapping of names to tensors, online networks first.

    Raises:
        DamagedError: a name is too long.
        RefusedError: there are too many names to compare them with networks.
    """
    found = list(_walk(content, budget))
    if (count := sum(len(tensors) for _, tensors in found)) > _MOST_NAMES:
        raise RefusedError(
            f"holds {count:,} named tensors; at most {_MOST_NAMES:,} are read",
            "Save the network's state_dict alone.",
        )
    largest = sorted(found, key=lambda item: -len(item[1]))[:_MOST_CONTAINERS]
    kept = {path for path, _ in largest}
    yield from sorted(
        (item for item in found if item[0] in kept), key=lambda item: is_momentum(item[0])
    )


def is_momentum(container: str) -> bool:
    """Whether a container's name says that it holds an averaged copy of the network in training."""
    return any(word in container for word in ("target", "momentum", "ema", "teacher"))


def _walk(content: Mapping[Any, Any], budget: MemoryBudget) -> Iterator[tuple[str, Named]]:
    """Yield the mappings in a file that hold tensors, each once: a pickle may contain itself."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    seen = {id(content)}
    for path, mapping in waiting:
        tensors = {
            name: tensor
            for name, value in mapping.items()
            if isinstance(name, str) and (tensor := _tensor(value, budget)) is not None
        }
        if tensors:
            if any(len(name) > _LONGEST_NAME for name in (*path, *tensors)):
                raise DamagedError("a tensor's name has too many characters")
            bare = bare_names(tensors)
            yield ".".join(path), {bare[name]: tensor for name, tensor in tensors.items()}
        if len(path) == _DEPTH:
            continue
        for key, value in mapping.items():
            inner = isinstance(value, Mapping) and not str(key).startswith(_NOT_WEIGHTS)
            if inner and id(value) not in seen:
                seen.add(id(value))
                waiting.append(((*path, str(key)), value))


def _tensor(value: Any, budget: MemoryBudget) -> Tensor | NoWeight | None:
    if isinstance(value, StoredTensor | StoredArray):
        return value.value(budget)
    return value if isinstance(value, NoWeight) else None
