"""Marks that quantizers leave in a traced network, for the graph's integer nodes to take their place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from lowbit.quant.convert import quantized_layers
from lowbit.quant.layers import WeightQuantized
from lowbit.quant.quantizers.base import Quantizer

DOMAIN = "lowbit"
WEIGHT, ACTIVATION = "Weight", "Activation"
NAME = "name"  # attribute: of the layer, or of the quantizer


@contextmanager
def marked(network: nn.Module) -> Iterator[list[str]]:
    """Trace marks instead of quantized tensors within the block.

    A weight becomes a node `lowbit::Weight` without inputs, a quantized activation the output of
    `lowbit::Activation`; both carry the name of the layer or quantizer that knows their integers.
    Quantizers that are off leave nothing.

    Yields:
        names of the marks that were made, in the order of computation, repeated if called so.
    """
    called: list[str] = []
    changed: list[tuple[nn.Module, str]] = []

    def replace(module: nn.Module, method: str, mark: Callable[..., Tensor]) -> None:
        module.__dict__[method] = mark
        changed.append((module, method))

    try:
        for name, layer in _weights(network).items():
            replace(layer, "_quantize_weight", partial(_weight_mark, called, name, layer))
        for name, quantizer in _activations(network).items():
            replace(quantizer, "forward", partial(_activation_mark, called, name))
        yield called
    finally:
        for module, method in changed:
            del module.__dict__[method]


def marked_names(network: nn.Module) -> frozenset[str]:
    """Return the names of the layers and quantizers that leave marks if they are called."""
    return frozenset({**_weights(network), **_activations(network)})


def _weights(network: nn.Module) -> dict[str, WeightQuantized]:
    return {n: layer for n, layer in quantized_layers(network).items() if layer.w_quant.active}


def _activations(network: nn.Module) -> dict[str, Quantizer]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Quantizer) and module.role == "activation" and module.active
    }


def _weight_mark(called: list[str], name: str, layer: WeightQuantized) -> Tensor:
    called.append(name)
    weight = layer.weight
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{WEIGHT}", (), {NAME: name}, dtype=weight.dtype, shape=weight.shape, version=1
    )


def _activation_mark(called: list[str], name: str, x: Tensor) -> Tensor:
    called.append(name)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{ACTIVATION}", (x,), {NAME: name}, dtype=x.dtype, shape=x.shape, version=1
    )
