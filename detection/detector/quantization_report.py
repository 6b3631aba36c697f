"""What of a detector is quantized, for its job's record: counts, layers, signs, share of the work."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from lowbit.quant import explain, quantized_layers, scales


def count_quantized(detector: nn.Module) -> dict[str, int]:
    """Count a detector's quantized layers and learned scales."""
    return {
        "quantized_layers": len(quantized_layers(detector)),
        "learned_scales": len(scales(detector)),
    }


def describe_quantization(detector: nn.Module) -> dict[str, Any]:
    """Return the counts, the layers whose input has a sign, and every layer with bits and reason."""
    return {
        **count_quantized(detector),
        "signed_inputs": signed_inputs(detector),
        "layers": [asdict(row) for row in explain(detector)],
    }


def signed_inputs(detector: nn.Module) -> list[str]:
    """Name the quantized layers whose input was found to have values below zero."""
    return [
        name
        for name, layer in quantized_layers(detector).items()
        if layer.a_quant is not None and layer.a_quant.signed
    ]


@torch.no_grad()
def quantized_share(detector: nn.Module, batch: list) -> float:
    """Return the share of multiplications in convolutions and linear layers that have low-bit weights.

    It belongs next to any count of bit-operations: the backbone does only a fifth to two fifths of the
    work of a detector with a pyramid.

    Args:
        detector: quantized or not.
        batch: images as the detector takes them in inference; their size decides.
    """
    counts = {True: 0, False: 0}
    low = set(quantized_layers(detector).values())

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        counts[layer in low] += output.numel() * layer.weight[0].numel()

    layers = [m for m in detector.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    modes = [(module, module.training) for module in detector.modules()]
    try:
        detector.eval()(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return counts[True] / sum(counts.values())
