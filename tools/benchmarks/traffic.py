"""Bytes that a piece of code moves through memory."""

from collections.abc import Callable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowbit.quant import use_fused_kernels


class _Moved(TorchDispatchMode):
    """Count the bytes that eager operations read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.nbytes for t in tensors)
        return out


def moved_mib(run: Callable) -> float:
    """Return MiB read and written by one call, eagerly."""
    use_fused_kernels(False)
    with _Moved() as moved:
        run()
    return moved.bytes / 2**20
