"""Projectors and predictors: small MLPs with configurable widths and norms."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lowbit.pretrain.frameworks.options import FrameworkOptions, Norm


def mlp(widths: Sequence[int], *, norm: Norm, affine: bool = True) -> nn.Sequential:
    """Return linear layers with ReLUs between them.

    A layer has a bias only if no normalization follows it.

    Args:
        widths: of the input, the hidden layers and the output.
        norm: which layers a batch norm follows.
        affine: whether the batch norm at the end has weights.

    Example:
        >>> [type(layer).__name__ for layer in mlp((8, 4, 2), norm="hidden")]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        last = index == len(widths) - 2
        normalized = norm == "all" or (norm == "hidden" and not last)
        layers.append(nn.Linear(fan_in, fan_out, bias=not normalized))
        if normalized:
            layers.append(nn.BatchNorm1d(fan_out, affine=affine or not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def projector(
    num_features: int,
    options: FrameworkOptions,
    *,
    dim: int,
    hidden_dim: int,
    layers: int,
    norm: Norm,
    affine: bool = True,
) -> nn.Sequential:
    """Return the projector set by `options`; the other arguments are the published defaults."""
    hidden = [options.hidden_dim or hidden_dim] * ((options.projector_layers or layers) - 1)
    widths = (num_features, *hidden, options.dim or dim)
    return mlp(widths, norm=options.projector_norm or norm, affine=affine)
