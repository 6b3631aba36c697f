"""Re-estimate normalization statistics for bit-widths that were not trained (SPEC D.6)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.quant.convert import set_precision
from lowbit.quant.layers import reuse_weights
from lowbit.quant.precision import Precision


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Any], bits: Sequence[int]) -> int:
    """Set batch-norm statistics at each of `bits` to the plain mean over `batches`; return their number.

    Statistics are reset first. Norms are in train mode and everything else in eval mode, as in later
    use. Each batch is seen at every bit-width, and each weight is quantized once.

    Raises:
        ValueError: there was no batch.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    precisions = [Precision(b, b) for b in bits]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # torch's name for a cumulative mean
    for precision in precisions:
        set_precision(model, precision)
        for norm in norms:
            norm.reset_running_stats()
    count = 0
    try:
        with reuse_weights(model):
            for batch in batches:
                for precision in precisions:
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
            "no batch was given to estimate norms from; they now have no statistics. Pass at least one."
        )
    return count
