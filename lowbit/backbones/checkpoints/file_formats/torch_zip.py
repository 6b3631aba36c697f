"""Read archives of `torch.save` since torch 1.6: a pickle, and a member of raw bytes for each storage."""

from typing import Any

from lowbit.backbones.checkpoints.file_formats import zip_directory
from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.pickle_reader import PickleReader
from lowbit.backbones.checkpoints.file_formats.pickled_classes import storage
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.backbones.checkpoints.file_formats.stored_values import Storage


def read_torch_zip(archive: memoryview, budget: MemoryBudget) -> tuple[Any, bool]:
    """Return the object in an archive, and whether checksums cover all of it.

    Raises:
        DamagedError: it is cut short, or a checksum is wrong.
        RefusedError: it is compressed, a program, of another kind of machine, or too large in memory.
    """
    members = zip_directory.members(archive, budget)
    root = next((name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), None)
    if root is None:
        what = "a NumPy archive" if any(n.endswith(".npy") for n in members) else "no checkpoint"
        raise RefusedError(
            f"is {what}, a zip file without torch's data.pkl",
            "Save the network's state_dict with torch.save or as safetensors.",
        )
    if any(name.startswith(f"{root}code/") for name in members):
        raise RefusedError(
            "is a TorchScript program", "Save the state_dict of the network that it was made from."
        )
    order = members.get(f"{root}byteorder")
    if order is not None and bytes(order.data) != b"little":
        raise RefusedError(
            "was written by a big-endian machine", "Write its tensors as safetensors there."
        )
    verified = zip_directory.check(members)
    storages: dict[str, Storage] = {}

    def find(identifier: Any) -> Storage:
        found = storage(identifier)
        if found.key not in storages:
            member = members.get(f"{root}data/{found.key}")
            if member is None:
                raise DamagedError("a tensor's storage is missing")
            found.data = member.data
            storages[found.key] = found
        if storages[found.key].dtype != found.dtype:
            return Storage(found.key, found.dtype, found.count, storages[found.key].data)
        return storages[found.key]

    return PickleReader(members[f"{root}data.pkl"].data, budget, find).load(), verified
