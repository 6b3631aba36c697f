"""Store one model for all bit-widths: the highest's codes, whose top bits are the others' codes.

A stored weight is `layer.weight` itself, as unsigned 8-bit codes; `StoredCodes` replaces its
quantizer and truncates them. Everything else (norms and clips of each bit-width, biases, layers in
full precision) is stored under its own name.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.adaptive.switching import PerBit, add_width, make_adaptive, rescale_head
from lowbit.quant.convert import quantize, quantized_layers, set_precision
from lowbit.quant.policies.get_policy import get_policy
from lowbit.quant.policies.policy import QuantPolicy
from lowbit.quant.precision import Precision
from lowbit.quant.quantizers.base import Quantizer

FORMAT = 2  # 1: other values for the same codes


class StoredCodes(Quantizer):
    """Quantizer whose input is stored codes; returns their values at any bit-width up to the stored."""

    def __init__(self, original: Quantizer, stored_bits: int) -> None:
        super().__init__(
            bits=stored_bits, channels=original.channels, ndim=original.ndim, role="weight"
        )
        self.original, self.stored_bits = original, stored_bits

    @property
    def ready(self) -> bool:
        return True

    @property
    def active(self) -> bool:
        return True

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        if bits > self.stored_bits:
            raise ValueError(
                f"a weight is stored with {self.stored_bits} bits; it was not set to {bits}. Ask for "
                f"{self.stored_bits} bits or fewer, or train on from the unquantized network."
            )
        self._bits = self.original.bits = bits

    def codes(self, x: Tensor) -> Tensor:
        return x >> (self.stored_bits - self._bits)

    def forward(self, x: Tensor) -> Tensor:
        step, offset = self.original.grid(x)
        return self.codes(x) * step + offset


@torch.no_grad()
def nested_state(
    model: nn.Module, policy: QuantPolicy | str | dict, bits: Sequence[int]
) -> dict[str, Any]:
    """Return an adaptive network as codes of its highest bit-width, in tensors and plain values.

    The network is set to the highest of `bits` afterwards.

    Args:
        model: from `make_adaptive`.
        policy: policy that quantized it.
        bits: B, the bit-widths it was trained at; others with norms are stored as zero-shot ones.

    Raises:
        ValueError: the network is not adaptive, or its quantizer's codes are not nested.
    """
    layers, switched = quantized_layers(model), _switched(model)
    if not switched:
        raise ValueError(
            f"this {type(model).__name__} has one bit-width; nothing was stored. Pass a network from "
            "lowbit.quant.adaptive.make_adaptive."
        )
    for name, layer in layers.items():
        if not layer.w_quant.has_nested_codes:
            raise ValueError(
                f"the codes of {name} at one bit-width do not contain those at lower ones; nothing was "
                "stored. Train with policy coquant, whose modified DoReFa does."
            )
    zero_shot = {int(b) for m in switched for b in m.at} - set(bits)
    top = max(zero_shot.union(bits))
    set_precision(model, Precision(top, top))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for key, layer in _weights(model).items():
        state[key] = layer.w_quant.codes(layer.weight).cpu()
    stored_bits = {name: layer.w_quant.bits for name, layer in layers.items()}
    set_precision(model, Precision(max(bits), max(bits)))
    return {
        "format": FORMAT,
        "policy": get_policy(policy).to_dict(),
        "bits": sorted(bits, reverse=True),
        "zero_shot": sorted(zero_shot, reverse=True),
        "stored_bits": stored_bits,
        "state": state,
    }


def load_nested(model: nn.Module, stored: dict[str, Any]) -> nn.Module:
    """Turn a full-precision network of the same architecture into the stored one, in place.

    Return it at its highest bit-width; `set_precision` truncates the codes to any lower one.

    Raises:
        ValueError: the file has another format.
        RuntimeError: the network has another architecture.
    """
    if stored.get("format") != FORMAT:
        raise ValueError(
            f"this is not a nested model of format {FORMAT}; nothing was loaded. Export it again."
        )
    state = stored["state"]
    quantize(model, stored["policy"])
    shared = not any(".a_quant.at." in name for name in state)
    make_adaptive(model, stored["bits"], shared_clips=shared)
    for b in stored["zero_shot"]:
        add_width(model, b)
    if any(name.endswith(".out_scale.q_scale") for name in state):
        rescale_head(model)
    for key in _weights(model):
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, nn.Parameter(state[key], requires_grad=False))
    for name, layer in quantized_layers(model).items():
        layer.w_quant = StoredCodes(layer.w_quant, stored["stored_bits"][name])
    model.load_state_dict(state)
    set_precision(model, Precision(max(stored["bits"]), max(stored["bits"])))
    return model.eval()


def _weights(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layer of each quantized weight, by the weight's name in the state dict."""
    layers = {id(layer.weight): layer for layer in quantized_layers(model).values()}
    named = model.named_parameters(remove_duplicate=False)
    return {name: layers[id(p)] for name, p in named if id(p) in layers}


def _switched(model: nn.Module) -> list[PerBit]:
    return [module for module in model.modules() if isinstance(module, PerBit)]
