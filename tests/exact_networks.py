"""Networks whose every sum is exact in float32, so that whatever computes one gives the same bits."""

import torch
from torch import Tensor, nn

from lowbit.quant.layers import WeightQuantized
from lowbit.quant.quantizers.lsq import LSQ

_FINEST = 2.0**-6  # of weights in full precision, and of shifts


@torch.no_grad()
def make_exact(network: nn.Module) -> nn.Module:
    """Round what a network with LSQ quantizers multiplies and adds, in place.

    Steps of quantizers, factors of normalizations and slopes become powers of two; all else becomes multiples
    of 2^-6. At few bits every product and sum then fits in float32's 24 bits, in any order, and a rounding
    tie is a tie everywhere.

    Args:
        network: in eval mode, quantized by LSQ at four bits or less, calibrated.
    """
    for module in network.modules():
        if isinstance(module, LSQ):
            module.q_scale.copy_(_power_of_two(module.q_scale))
        elif isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.125
        elif hasattr(module, "running_var"):
            module.eps = 0.0
            module.running_var.fill_(1)
            module.weight.copy_(module.weight.sign() * _power_of_two(module.weight.abs()))
            for shift in (module.bias, module.running_mean):
                shift.copy_(_multiples(shift))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if module.bias is not None:
                module.bias.copy_(_multiples(module.bias))
            if not isinstance(module, WeightQuantized) or not module.w_quant.active:
                module.weight.copy_(_multiples(module.weight))
    return network


def exact_images(*shape: int) -> Tensor:
    """Return normal numbers (N, 3, H, W) of four binary places."""
    return (torch.randn(shape) * 16).round() / 16


def _power_of_two(x: Tensor) -> Tensor:
    return x.clamp_min(2.0**-20).log2().round().exp2()


def _multiples(x: Tensor) -> Tensor:
    return (x / _FINEST).round() * _FINEST
