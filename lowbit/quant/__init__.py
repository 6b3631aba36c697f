"""Quantized networks: precisions, quantizers, layer policies, and transition-rate optimizers.

One model object holds every bit-width:

Example:
    >>> import torch
    >>> from lowbit.quant import FP, Precision, calibrate, get_policy, quantize, set_precision
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU())
    >>> images = torch.rand(4, 3, 8, 8)
    >>> full = net(images)
    >>> net = quantize(net, get_policy("ssql"))
    >>> _ = calibrate(net, [images])
    >>> bool((net(images) == full).all())         # starts at full precision
    True
    >>> set_precision(net, Precision.parse("4w4a"))
    >>> bool((net(images) == full).all())
    False
"""

from lowbit.quant.activation_ranges import calibrate, observe
from lowbit.quant.asked import require_asked
from lowbit.quant.bit_operations import bitops
from lowbit.quant.convert import (
    all_quantizers,
    dequantize,
    quantize,
    quantized_layers,
    scales,
    set_precision,
)
from lowbit.quant.kernels.keep_freed_memory import keep_freed_memory
from lowbit.quant.kernels.torch_compiled import fused_kernels, use_fused_kernels
from lowbit.quant.layers import reuse_weights
from lowbit.quant.policies.get_policy import get_policy, list_policies
from lowbit.quant.policies.policy import QuantizerSpec, QuantPolicy
from lowbit.quant.policies.rule import Rule
from lowbit.quant.precision import FP, Precision
from lowbit.quant.quantizers.base import QUANTIZERS, Quantizer, register
from lowbit.quant.quantizers.interval import Interval
from lowbit.quant.quantizers.lsq import LSQ
from lowbit.quant.quantizers.minmax import MinMax
from lowbit.quant.report import costs, explain, size_bytes
from lowbit.quant.roles import parameters_by_role, scales_by_lr_factor
from lowbit.quant.transition.counter import TransitionCounter
from lowbit.quant.transition.latent_weights import latent_statistics
from lowbit.quant.transition.optimizer import t_variant
from lowbit.quant.transition.target_rate import target_rate

__all__ = [
    "FP",
    "LSQ",
    "QUANTIZERS",
    "Interval",
    "MinMax",
    "Precision",
    "QuantPolicy",
    "Quantizer",
    "QuantizerSpec",
    "Rule",
    "TransitionCounter",
    "all_quantizers",
    "bitops",
    "calibrate",
    "costs",
    "dequantize",
    "explain",
    "fused_kernels",
    "get_policy",
    "keep_freed_memory",
    "latent_statistics",
    "list_policies",
    "observe",
    "parameters_by_role",
    "quantize",
    "quantized_layers",
    "register",
    "require_asked",
    "reuse_weights",
    "scales",
    "scales_by_lr_factor",
    "set_precision",
    "size_bytes",
    "t_variant",
    "target_rate",
    "use_fused_kernels",
]
