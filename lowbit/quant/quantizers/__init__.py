"""Quantizers: modules with a scale that round a float tensor to a low-bit grid.

`Quantizer` is the contract: `forward(x)`, `codes(x)`, `init_from(x)`, the attributes `bits`, `signed`,
`granularity` and `scale`, and everything else the project uses of a quantizer.
Values a forward pass branches on (initialized, signed) are Python attributes, mirrored in the buffer
`q_state` so that they survive a checkpoint, and never read from the device in a step.
"""

from lowbit.quant.quantizers.base import (
    QUANTIZERS,
    LinearCodes,
    Quantizer,
    TransitionPoints,
    find,
    register,
)
from lowbit.quant.quantizers.dorefa import DoReFa, ScaledDoReFa
from lowbit.quant.quantizers.ewgs import EWGS
from lowbit.quant.quantizers.interval import Interval
from lowbit.quant.quantizers.learned import LearnedScale, LearnedStep
from lowbit.quant.quantizers.lsq import LSQ, LSQPlus
from lowbit.quant.quantizers.minmax import MinMax
from lowbit.quant.quantizers.pact import PACT
from lowbit.quant.quantizers.sign import Sign

__all__ = [
    "EWGS",
    "LSQ",
    "PACT",
    "QUANTIZERS",
    "DoReFa",
    "Interval",
    "LSQPlus",
    "LearnedScale",
    "LearnedStep",
    "LinearCodes",
    "MinMax",
    "Quantizer",
    "ScaledDoReFa",
    "Sign",
    "TransitionPoints",
    "find",
    "register",
]
