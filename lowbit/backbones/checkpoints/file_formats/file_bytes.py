"""Read a checkpoint file once into memory."""

import os
from pathlib import Path

import numpy as np

from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.common.input_files.regular_file import NotAFileError, check_regular
from lowbit.common.text import size


def largest_file() -> int:
    """Return how many bytes a file may have: a third of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3


def read_bytes(path: Path) -> memoryview:
    """Return the bytes of a file, writable and aligned, so that tensors can be views of them.

    Raises:
        OSError: there is no such file, or it cannot be read.
        RefusedError: it is a folder, a pipe or a device, or too large.
        DamagedError: it was being written.
    """
    try:
        check_regular(path)
    except NotAFileError as error:
        raise RefusedError(f"is not read: {error}", "Give a checkpoint file.") from error
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        if length > (limit := largest_file()):
            raise RefusedError(
                f"has {size(length)}; at most {size(limit)} are read, a third of this machine's memory",
                "Save the network's state_dict alone, or use a larger machine.",
            )
        data = memoryview(np.empty(length, np.uint8))
        done = 0
        while done < length and (count := file.readinto(data[done:])):
            done += count
        if done < length or file.read(1):
            raise DamagedError("its size changed while it was read")
    return data
