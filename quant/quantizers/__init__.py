"""Quantizers: modules that own a scale and turn a float tensor into one on a low-bit grid.

The contract every quantizer obeys (see `Quantizer`): `forward(x)`, `codes(x)`, `init_from(x)`, and the
attributes `bits`, `signed`, `granularity`, `scale`. The scale lives here and nowhere else; layers ask.
Facts a forward pass branches on (initialized, signed) are Python values, mirrored in the buffer
`q_state` so that they survive a checkpoint, and never read from the device in a step.
"""

from quant.quantizers.base import QUANTIZERS, Quantizer, register
from quant.quantizers.interval import Interval
from quant.quantizers.learned import LearnedScale
from quant.quantizers.lsq import LSQ
from quant.quantizers.minmax import MinMax

__all__ = ["LSQ", "QUANTIZERS", "Interval", "LearnedScale", "MinMax", "Quantizer", "register"]
