"""Report what is quantized in a detector: counts, layers, signs of inputs."""

from dataclasses import asdict
from typing import Any

from torch import nn

from lowbit.quant import explain, quantized_layers, scales


def count_quantized(detector: nn.Module) -> dict[str, int]:
    """Count a detector's quantized layers and learned scales."""
    return {
        "quantized_layers": len(quantized_layers(detector)),
        "learned_scales": len(scales(detector)),
    }


def describe_quantization(detector: nn.Module) -> dict[str, Any]:
    """Return the counts, the layers with negative inputs, and every layer with bits and reason."""
    return {
        **count_quantized(detector),
        "signed_inputs": signed_inputs(detector),
        "layers": [asdict(row) for row in explain(detector)],
    }


def signed_inputs(detector: nn.Module) -> list[str]:
    """Return the names of quantized layers whose input was found to have negative values."""
    return [
        name
        for name, layer in quantized_layers(detector).items()
        if layer.a_quant is not None and layer.a_quant.signed
    ]
