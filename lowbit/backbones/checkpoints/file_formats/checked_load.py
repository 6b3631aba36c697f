"""Load files that this suite writes with `torch.save`: states, detectors, adaptive networks."""

import io
import mmap
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.backbones.checkpoints.file_formats.torch_zip import read_torch_zip
from lowbit.common.input_files.regular_file import check_regular


def load_checked(source: str | Path | bytes) -> Any:
    """Return what `torch.save` wrote, on the CPU: tensors in plain containers.

    The archive's checksums are compared, which torch ignores, and its pickle is read as data first, so
    that nothing is unpacked without bound and a class is refused by its name.

    Args:
        source: the file, or its bytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DamagedError: it is cut short, or a checksum is wrong.
        RefusedError: it holds classes or compressed members, or is too large in memory.
    """
    try:
        if isinstance(source, bytes):
            return _load(memoryview(source), io.BytesIO(source))
        check_regular(source)
        with Path(source).open("rb") as file:
            return _load(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), file)
    except (DamagedError, RefusedError, OSError):
        raise
    except Exception as error:  # damaged bytes can raise any; torch's advise to load them unsafely
        raise DamagedError(f"its bytes cannot be read, {type(error).__name__}") from error


def _load(data: memoryview, file: BinaryIO) -> Any:
    if data[:2] != b"PK":
        raise DamagedError("it is no archive of torch.save")
    read_torch_zip(data, MemoryBudget(len(data)))
    return torch.load(file, map_location="cpu", weights_only=True)
