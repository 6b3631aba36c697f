"""Marks that quantizers leave in a traced network, for the graph's integer nodes to take their place."""

from collections.abc import Iterator
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
def marked(network: nn.Module) -> Iterator[None]:
    """Trace marks instead of quantized tensors within the block.

    A weight becomes a node `lowbit::Weight` without inputs, a quantized activation the output of
    `lowbit::Activation`; both carry the name of the layer or quantizer that knows their integers.
    Quantizers that are off leave nothing.
    """
    changed: list[tuple[nn.Module, str]] = []

    def replace(module: nn.Module, method: str, mark) -> None:
        module.__dict__[method] = mark
        changed.append((module, method))

    try:
        for name, layer in quantized_layers(network).items():
            if layer.w_quant.active:
                replace(layer, "_quantize_weight", partial(_weight_mark, layer, name))
        for name, module in network.named_modules():
            if isinstance(module, Quantizer) and module.role == "activation" and module.active:
                replace(module, "forward", partial(_activation_mark, name))
        yield
    finally:
        for module, method in changed:
            del module.__dict__[method]


def _weight_mark(layer: WeightQuantized, name: str) -> Tensor:
    weight = layer.weight
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{WEIGHT}", (), {NAME: name}, dtype=weight.dtype, shape=weight.shape, version=1
    )


def _activation_mark(name: str, x: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{ACTIVATION}", (x,), {NAME: name}, dtype=x.dtype, shape=x.shape, version=1
    )
