"""What a class or function that a pickle names becomes here: data of ours. None is imported or called."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, ForeignClassError
from lowbit.backbones.checkpoints.file_formats.stored_values import (
    ArrayType,
    NoWeight,
    Skipped,
    Storage,
    StoredArray,
    StoredTensor,
    sizes,
)
from lowbit.common.text import printable

# Settings and logs that training code stores with the weights; they are skipped. Any other class
# refuses the file.
_SETTINGS = (
    "argparse.",
    "collections.",
    "copyreg.",
    "datetime.",
    "lightning.",
    "mmcv.",
    "mmengine.",
    "numpy.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "typing.",
)
_BUILTINS = frozenset(
    f"builtins.{name}"
    for name in (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
        "object", "range", "set", "slice", "str", "tuple",
    )
)  # fmt: skip
_RENAMED = (
    ("numpy._core.", "numpy.core."),
    ("__builtin__.", "builtins."),
    ("copy_reg.", "copyreg."),
)
_LONGEST = 1000  # characters of a name

_STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
    **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"},
    **{"Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64"},
    **{"QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32", "QUInt4x2": "quint4x2"},
    **{"QUInt2x4": "quint2x4", "Untyped": "uint8", "Typed": "uint8"},
}
"""Names of storage classes without "Storage" -> types of their numbers."""


@dataclass(frozen=True)
class Named:
    """A class, function or constant that a pickle names."""

    name: str


def named(module: str, name: str) -> Named:
    """Return what stands for a name.

    Raises:
        ForeignClassError: it is none of those that stand in checkpoints.
    """
    full = f"{module}.{name}"
    for old, new in _RENAMED:
        if full.startswith(old):
            full = new + full.removeprefix(old)
    known = (
        full in _CONSTRUCTORS
        or full in _BUILTINS
        or full.startswith(_SETTINGS)
        or _storage_dtype(full) is not None
        or _torch_dtype(full) is not None
        or full in _TENSOR_CLASSES
    )
    if not known or len(full) > _LONGEST:
        raise ForeignClassError(printable(full))
    return Named(full)


def construct(function: Any, arguments: Any) -> Any:
    """Return what a call of a named class or function stands for."""
    if isinstance(function, Skipped):
        return Skipped()
    if not isinstance(function, Named) or not isinstance(arguments, tuple):
        raise DamagedError("a pickle calls what is no class")
    constructor = _CONSTRUCTORS.get(function.name)
    return Skipped() if constructor is None else constructor(*arguments)


def storage(identifier: Any) -> Storage:
    """Return the storage that a persistent id of torch names."""
    if (
        not isinstance(identifier, tuple)
        or len(identifier) < 5
        or _text(identifier[0]) != "storage"
    ):
        raise DamagedError("a pickle refers to what is no storage")
    _, kind, key, _, count = identifier[:5]
    dtype = _storage_dtype(kind.name) if isinstance(kind, Named) else None
    if dtype is None:
        raise DamagedError("a storage has no type")
    if len(identifier) > 5 and identifier[5] is not None:
        raise DamagedError("it is written by a version of torch before 0.4")
    (count,) = sizes([count])
    return Storage(_text(key), dtype, count)


def _text(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str | memoryview) or len(value) > _LONGEST:
        return ""
    return value if isinstance(value, str) else str(value, "latin1")


def _storage_dtype(name: str) -> str | None:
    first, _, last = name.rpartition(".")
    if first not in ("torch", "torch.cuda", "torch.storage") or not last.endswith("Storage"):
        return None
    return _STORAGES.get(last.removesuffix("Storage"))


def _torch_dtype(name: str) -> str | None:
    """Return a dtype's name: torch pickles it as the constant `torch.float32`."""
    return _TORCH_DTYPES.get(name)


_TORCH_DTYPES = {
    f"torch.{name}": str(value).removeprefix("torch.")
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype)
}
_TENSOR_CLASSES = frozenset(
    {
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
        "torch.per_channel_affine",
        "torch.per_channel_symmetric",
        "torch.per_channel_affine_float_qparams",
    }
)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """`_rebuild_tensor` and `_rebuild_tensor_v2`: (requires_grad, hooks, metadata) may follow."""
    if not isinstance(storage, Storage):
        raise DamagedError("a tensor has no storage")
    if len(rest) > 2 and rest[2]:
        return NoWeight(sizes(size), "a tensor to be negated or conjugated")
    return StoredTensor(storage, offset, size, stride, storage.dtype)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    """`_rebuild_tensor_v3`: with a type of its own."""
    kind = _torch_dtype(dtype.name) if isinstance(dtype, Named) else None
    if kind is None:
        raise DamagedError("a tensor has no type")
    tensor = _tensor(storage, offset, size, stride, grad, hooks, *rest)
    if isinstance(tensor, StoredTensor):
        tensor.dtype = kind
    return tensor


def _odd(kind: str, place: int | None) -> Callable[..., NoWeight]:
    """Return a constructor of tensors that are no weights; their size is argument `place`."""

    def _no_weight(*arguments: Any) -> NoWeight:
        return NoWeight(torch.Size(()) if place is None else sizes(arguments[place]), kind)

    return _no_weight


def _sparse(_layout: Any, data: Any, *_: Any) -> NoWeight:
    """(indices, values, size, ...), or (compressed, plain indices, values, size)."""
    size = next((part for part in data[2:4] if isinstance(part, tuple)), ())
    return NoWeight(sizes(size), "a sparse tensor")


def _of_type(function: Any, _class: Any, arguments: Any, _state: Any = None) -> Any:
    """`_rebuild_from_type_v2`: a parameter or tensor with attributes."""
    return construct(function, arguments)


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """An empty one, whose items follow, or with items: ([[key, value], ...],), as old Pythons write."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else ()
    return {p[0]: p[1] for p in pairs if len(p) == 2 and isinstance(p[0], str)}


def _encoded(text: Any = "", encoding: Any = "latin1") -> Any:
    """Bytes as Python 2's protocols store them; they stay text until an array needs them."""
    if encoding not in ("latin1", "latin-1"):
        raise DamagedError("bytes are stored in an unusual encoding")
    return text


def _array(*_: Any) -> StoredArray:
    """`_reconstruct`: an array whose shape, type and bytes follow."""
    return StoredArray()


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> StoredArray:
    return StoredArray(shape, dtype, order == "F", data)


def _array_type(code: Any = "", *_: Any) -> ArrayType:
    return ArrayType(_text(code))


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_qtensor": _odd("a quantized tensor", 2),
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("a meta tensor, without values", 1),
    "torch._utils._rebuild_nested_tensor": _odd("a nested tensor", None),
    "torch._utils._rebuild_wrapper_subclass": _odd("a tensor that wraps others", 2),
    "torch.nn.parameter.Parameter": _first,
    "torch.serialization._get_layout": lambda *_: Skipped(),
    "torch.Size": lambda numbers=(): numbers if isinstance(numbers, tuple) else (),
    "torch.device": lambda *_: Skipped(),
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": lambda *_: [],
    "builtins.bytes": lambda *_: "",  # older protocols write empty ones so
    "_codecs.encode": _encoded,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "numpy.dtype": _array_type,
}
