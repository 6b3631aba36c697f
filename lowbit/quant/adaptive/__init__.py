"""One set of weights, many bit-widths: CoQuant, AdaBits, Switchable BN and Any-Precision (SPEC D).

Example:
    >>> import torch
    >>> from lowbit.quant import calibrate, quantize, set_precision
    >>> from lowbit.quant.adaptive import make_adaptive
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
    ...     torch.nn.Conv2d(8, 8, 3), torch.nn.BatchNorm2d(8))
    >>> images = torch.rand(4, 3, 8, 8)
    >>> net = quantize(net, "coquant")
    >>> _ = calibrate(net, [images])
    >>> net = make_adaptive(net, (8, 4, 2))     # a norm and a clip for each bit-width
    >>> set_precision(net, "4w4a")
    >>> net[4].running_mean is net[4].at["4"].running_mean
    True
"""

from lowbit.quant.adaptive.joint import METHODS, JointStep, Method, Outcome
from lowbit.quant.adaptive.nested import load_nested, nested_state
from lowbit.quant.adaptive.norms import estimate_norms
from lowbit.quant.adaptive.swapping import student_probabilities, swap_units
from lowbit.quant.adaptive.switching import add_width, make_adaptive, rescale_head
from lowbit.quant.adaptive.teachers import CONFIDENCES, DISTANCES, model_distances

__all__ = [
    "CONFIDENCES",
    "DISTANCES",
    "METHODS",
    "JointStep",
    "Method",
    "Outcome",
    "add_width",
    "estimate_norms",
    "load_nested",
    "make_adaptive",
    "model_distances",
    "nested_state",
    "rescale_head",
    "student_probabilities",
    "swap_units",
]
