"""Re-estimate normalization statistics for bit-widths that were not trained (SPEC D.6).

The estimate is the mean and variance of all values of all batches together, as in fvcore's
`precise_bn`, and so depends neither on the order of images nor on how they are batched. Torch's
cumulative average is the mean of the batches' own variances: it leaves out the variance between
batches, which is most of it where images are sorted by class.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.quant.convert import set_precision
from lowbit.quant.layers import reuse_weights
from lowbit.quant.precision import Precision


class _Population:
    """Mean and variance of values that arrive in batches, in double precision (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0  # sum of squared deviations from the mean

    def add(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add a batch of `count` values with this mean and (unbiased) variance."""
        total = self.count + count
        away = mean.double() - self._mean
        within, between = (
            variance.double() * (count - 1),
            away.square() * (self.count * count / total),
        )
        self._squares = self._squares + within + between
        self._mean = self._mean + away * (count / total)
        self.count = total

    def write_to(self, norm: nn.Module) -> None:
        """Make this the norm's statistics."""
        norm.running_mean.copy_(self._mean)
        norm.running_var.copy_(self._squares / self.count)


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Any], bits: Sequence[int]) -> int:
    """Set batch-norm statistics at each of `bits` to those of all `batches` together; return their number.

    They are the mean and variance of all values that enter the norm, each counting once. In the passes
    norms are in train mode and everything else in eval mode, as in later use. Each batch is seen at every
    bit-width, and each weight is quantized once.

    Raises:
        ValueError: there was no batch.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    seen: dict[tuple[Precision, nn.Module], _Population] = defaultdict(_Population)
    count = 0

    def before(norm: nn.Module, args: tuple[Tensor]) -> None:
        if (precision, norm) not in seen:
            norm.reset_running_stats()

    def after(norm: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        values = args[0].numel() // norm.num_features
        seen[precision, norm].add(norm.running_mean, norm.running_var, values)

    with ExitStack() as hooks:
        hooks.enter_context(reuse_weights(model))
        try:
            model.eval()
            for norm in norms:
                norm.train()
                norm.momentum = 1.0  # running statistics are then those of the last batch
                hooks.callback(norm.register_forward_pre_hook(before).remove)
                hooks.callback(norm.register_forward_hook(after).remove)
            for batch in batches:
                for width in bits:
                    precision = Precision(width, width)
                    set_precision(model, precision)
                    model(batch)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for module, mode in modes:
                module.training = mode
    if count == 0:
        raise ValueError(
            "no batch was given to estimate norms from; their statistics were not changed. Pass at least one."
        )
    for (precision, norm), population in seen.items():
        set_precision(model, precision)  # chooses the statistics that are written
        population.write_to(norm)
    return count
