"""Tensors and arrays as files describe them, and the tensors that they become."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )
}  # fmt: skip
"""The types of number that become tensors: weights, and the counters and indices beside them."""


@dataclass(frozen=True, slots=True)
class NoWeight:
    """A tensor that cannot be a weight.

    Attributes:
        shape: its shape, as far as it has one.
        kind: what it is: "a sparse tensor", "complex64 numbers".
    """

    shape: torch.Size
    kind: str


class Skipped:
    """What stands for an object that is not kept: settings, sets, functions that were not called."""

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Storage:
    """Numbers in a file, of which tensors are views.

    Attributes:
        key: its name in the file.
        dtype: of its numbers, by torch's name.
        count: how many there are, as declared.
        data: their bytes; None until they are found.
    """

    key: str
    dtype: str
    count: int
    data: memoryview | None = None


@dataclass(eq=False, slots=True)
class StoredTensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    _value: Tensor | NoWeight | None = field(default=None, repr=False)

    def value(self, budget: MemoryBudget) -> Tensor | NoWeight:
        """Return the tensor, a view of the file's bytes; the same one each time.

        Raises:
            DamagedError: it reaches beyond its storage.
            RefusedError: there is too little memory left.
        """
        if self._value is None:
            self._value = self._view(budget)
        return self._value

    def _view(self, budget: MemoryBudget) -> Tensor | NoWeight:
        size, stride = sizes(self.size), sizes(self.stride)
        (offset,) = sizes([self.offset])
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            return NoWeight(size, f"{self.dtype} numbers")
        if len(size) != len(stride):
            raise DamagedError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
        if self.storage.data is None:
            raise DamagedError("a tensor's storage is missing")
        count = math.prod(size)
        if count == 0:
            return torch.empty(size, dtype=dtype)
        span = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (offset + span) * dtype.itemsize > len(self.storage.data):
            raise DamagedError("a tensor reaches beyond its storage")
        budget.take(count * dtype.itemsize)
        numbers = view(self.storage.data, dtype, offset * dtype.itemsize, span, budget)
        return numbers.as_strided(size, stride)


_ARRAY_TYPES = {np.dtype(name).str[1:]: name for name in DTYPES if name != "bfloat16"}
_OTHER_ARRAYS = {"f": "long double numbers", "c": "complex numbers", "u": "unsigned numbers"}


@dataclass(eq=False, slots=True)
class ArrayType:
    """A numpy dtype: kind and width ("f4"), and the order of its bytes."""

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        """Take (version, order, ...), which follows in a pickle."""
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]


@dataclass(eq=False, slots=True)
class StoredArray:
    """A numpy array. `data` is its bytes, or the text whose Latin-1 characters are its bytes."""

    shape: Any = ()
    dtype: ArrayType | None = None
    fortran: bool = False
    data: Any = None
    _value: Tensor | NoWeight | None = field(default=None, repr=False)

    def build(self, state: Any) -> None:
        """Take (version, shape, dtype, is_fortran, bytes), which follows in a pickle."""
        if not isinstance(state, tuple) or len(state) < 4:
            raise DamagedError("an array is incomplete")
        self.shape, self.dtype, self.fortran, self.data = state[-4:]

    def value(self, budget: MemoryBudget) -> Tensor | NoWeight:
        """Return the tensor; see `StoredTensor.value`."""
        if self._value is None:
            self._value = self._read(budget)
        return self._value

    def _read(self, budget: MemoryBudget) -> Tensor | NoWeight:
        shape, data = sizes(self.shape), self.data
        if not isinstance(self.dtype, ArrayType):
            raise DamagedError("an array has no type")
        name = _ARRAY_TYPES.get(self.dtype.code)
        if name is None:
            other = _OTHER_ARRAYS.get(self.dtype.code[:1], "objects that are no numbers")
            return NoWeight(shape, f"an array of {other}")
        dtype, count = DTYPES[name], math.prod(shape)
        if not isinstance(data, str | memoryview) or len(data) != count * dtype.itemsize:
            raise DamagedError(f"an array of {count} numbers has not their bytes")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        budget.take(len(data))
        if isinstance(data, str):
            data = memoryview(bytearray(data, "latin1"))
        if self.dtype.order == ">" and dtype.itemsize > 1:
            budget.take(len(data))
            data = memoryview(np.frombuffer(data, self.dtype.code).byteswap()).cast("B")
        flat = view(data, dtype, 0, count, budget)
        if self.fortran:
            return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1])
        return flat.reshape(shape)


def sizes(numbers: Any) -> torch.Size:
    """Return sizes, strides or offsets that a file declares.

    Raises:
        DamagedError: they are not numbers from 0 that fit in 64 bits.
    """
    plain = isinstance(numbers, Sequence) and len(numbers) <= 64
    if not plain or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise DamagedError("a tensor has a size that is no size")
    return torch.Size(numbers)


def view(
    data: memoryview, dtype: torch.dtype, start: int, count: int, budget: MemoryBudget
) -> Tensor:
    """Return numbers as a view of bytes, or a copy where a processor could not read them in place."""
    place = np.frombuffer(data, np.uint8).__array_interface__["data"][0] + start
    if place % dtype.itemsize:
        end = start + count * dtype.itemsize
        budget.take(end - start)
        data, start = memoryview(bytearray(data[start:end])), 0
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start)
