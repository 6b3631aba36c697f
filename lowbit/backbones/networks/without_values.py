"""Build networks that have shapes and no values, to be counted or compared."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

_INITIALIZERS = {
    "add_",
    "clamp_",
    "constant_",
    "erfinv_",
    "fill_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "mul_",
    "normal_",
    "uniform_",
    "zero_",
}


class _Uninitialized(TorchFunctionMode):
    """Leave out what would write values into meta tensors: torch works out each such call in Python."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in _INITIALIZERS:
            target = args[0] if args else kwargs.get("tensor")  # as torch.nn.init calls itself
            if isinstance(target, torch.Tensor) and target.is_meta:
                return target
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Create tensors on the meta device and do not initialize them; no network may run within.

    Example:
        >>> with without_values():
        ...     layer = torch.nn.Linear(2, 3)
        >>> layer.weight.device.type, tuple(layer.weight.shape)
        ('meta', (3, 2))
    """
    with torch.device("meta"), _Uninitialized():
        yield
