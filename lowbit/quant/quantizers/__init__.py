"""Quantizers: modules that own a scale and turn a float tensor into one on a low-bit grid.

The contract every quantizer obeys (see `Quantizer`): `forward(x)`, `codes(x)`, `init_from(x)`, and the
attributes `bits`, `signed`, `granularity`, `scale`. The scale lives here and nowhere else; layers ask.
Facts a forward pass branches on (initialized, signed) are Python values, mirrored in the buffer
`q_state` so that they survive a checkpoint, and never read from the device in a step.
"""

from lowbit.quant.quantizers.base import QUANTIZERS, Quantizer, find, register
from lowbit.quant.quantizers.dorefa import DoReFa, ScaledDoReFa
from lowbit.quant.quantizers.ewgs import EWGS
from lowbit.quant.quantizers.interval import Interval
from lowbit.quant.quantizers.learned import LearnedScale
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
    "MinMax",
    "Quantizer",
    "ScaledDoReFa",
    "Sign",
    "find",
    "register",
]
