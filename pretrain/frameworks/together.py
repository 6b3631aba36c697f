"""Several views through a network in one pass, which computes of each what a pass of its own would.

What depends on a whole batch, batch norms and quantizers that take their range from it, sees each view by
itself. All else sees one large batch: half the calls for the same arithmetic, which is what a step of a
small network waits for.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from lowbit.quant.quantizers.base import Quantizer, is_recomputation


class _Apart:
    """Mixin of a module whose outputs depend on the whole batch.

    Attributes:
        views: how many the last pass embedded; activation checkpointing repeats that pass later.
        is_splitting: whether a pass of several views is running.
    """

    views = 1
    is_splitting = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.is_splitting or is_recomputation()):
            self.views = 1
        if self.views == 1:
            return super().forward(x)
        return torch.cat([super(_Apart, self).forward(view) for view in x.chunk(self.views)])


def together(network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """Return network(view) of each view, (N, ...) each, all of one shape.

    Statistics are updated view by view, in their order. A network with layers whose dimension 0 counts
    the elements of a sequence gets a pass for each view.
    """
    modules = list(network.modules())
    if len(views) == 1 or not all(vars(module).get("batch_first", True) for module in modules):
        return [network(view) for view in views]
    apart = [module for module in modules if _depends_on_batch(module)]
    for module in apart:
        if not isinstance(module, _Apart):
            module.__class__ = _apart(type(module))
        module.views, module.is_splitting = len(views), True
    try:
        return list(network(torch.cat(views)).chunk(len(views)))
    finally:
        for module in apart:
            module.is_splitting = False


def _depends_on_batch(module: nn.Module) -> bool:
    if isinstance(module, Quantizer):
        return module.role == "activation" and module.depends_on_batch
    return isinstance(module, nn.modules.batchnorm._NormBase)


@cache
def _apart(base: type[nn.Module]) -> type[nn.Module]:
    return type(base.__name__, (_Apart, base), {"__module__": base.__module__})
