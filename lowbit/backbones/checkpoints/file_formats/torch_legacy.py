"""Read files of `torch.save` before torch 1.6: pickles, then the raw bytes of every storage."""

from typing import Any

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.pickle_reader import PickleReader
from lowbit.backbones.checkpoints.file_formats.pickled_classes import storage
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.backbones.checkpoints.file_formats.stored_values import Storage

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""The pickle of a number that begins such a file."""

_WIDTHS = {"float64": 8, "int64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4} | {
    **{"qint32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
}  # bytes of a number; others have one


def read_torch_legacy(data: memoryview, budget: MemoryBudget) -> Any:
    """Return the object in a file.

    Raises:
        DamagedError: it is cut short.
        RefusedError: it is of another kind of machine, or too large in memory.
    """
    storages: dict[str, Storage] = {}

    def find(identifier: Any) -> Storage:
        found = storage(identifier)
        return storages.setdefault(found.key, found)

    reader = PickleReader(data, budget, find)
    _, _, system = reader.load(), reader.load(), reader.load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise RefusedError(
            "was written by a big-endian machine", "Write its tensors as safetensors there."
        )
    content, keys = reader.load(), reader.load()
    if not isinstance(keys, list):
        raise DamagedError("the list of its storages is missing")
    at = reader.position
    for key in keys:
        found = storages.get(key) if isinstance(key, str) else None
        if found is None:
            raise DamagedError("it lists a storage that no tensor has")
        count = int.from_bytes(data[at : at + 8], "little", signed=True)
        end = at + 8 + count * _WIDTHS.get(found.dtype, 1)
        if count != found.count or end > len(data):
            raise DamagedError("a storage is cut short")
        found.data = data[at + 8 : end]
        at = end
    return content
