"""What a quantized network is made of, and what it would cost: for people, and for the board.

Nothing here makes a network smaller or faster: quantization is simulated. `size_bytes` and `bitops`
say what integer hardware would store and compute.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quant.layers import ActivationQuantized, Quantized, WeightQuantized
from quant.policy import FULL, TARGET
from quant.precision import OFF


@dataclass(frozen=True)
class LayerReport:
    """One layer as `explain` found it; bits are current ones, 32 where nothing is quantized."""

    name: str
    kind: str
    weight: str
    activation: str
    weight_bits: int
    activation_bits: int
    why: str


class Explanation(list[LayerReport]):
    """The rows of `explain`; prints as an aligned table."""

    def __str__(self) -> str:
        head = ("layer", "kind", "weight", "activation", "w", "a", "why")
        rows = [
            (
                *(r.name, r.kind, r.weight, r.activation),
                *(_bits(r.weight_bits), _bits(r.activation_bits)),
                r.why,
            )
            for r in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )


def explain(model: nn.Module) -> Explanation:
    """List every convolution, linear layer and quantized activation, with its bits and the reason.

    Example:
        >>> from quant import Precision, quantize
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        >>> print(explain(quantize(net, "ssql", Precision(4, 4))))
        layer  kind    weight           activation      w  a  why
        0      Conv2d  MinMax, channel  -               8  -  fixed at 8 bits
        1      ReLU    -                MinMax, tensor  -  8  fixed at 8 bits
        2      Conv2d  MinMax, channel  -               4  -  the precision's bits
        3      ReLU    -                MinMax, tensor  -  4  the precision's bits
    """
    rows = Explanation()
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            rows.append(
                LayerReport(
                    name=name,
                    kind=module.base.__name__,
                    weight=_quantizer(module.w_quant),
                    activation=_quantizer(module.a_quant),
                    weight_bits=module.w_quant.bits if module.w_quant is not None else OFF,
                    activation_bits=module.a_quant.bits if module.a_quant is not None else OFF,
                    why=_reason(module),
                )
            )
        elif isinstance(module, nn.Conv2d | nn.Linear):
            kind = type(module).__name__
            rows.append(LayerReport(name, kind, "-", "-", OFF, OFF, "full precision by rule"))
    return rows


def _bits(bits: int) -> str:
    return "-" if bits >= OFF else str(bits)


def _quantizer(quantizer: nn.Module | None) -> str:
    return "-" if quantizer is None else f"{type(quantizer).__name__}, {quantizer.granularity}"


def _reason(module: Quantized) -> str:
    sides = {module.rule.weight, module.rule.activation} - {FULL}
    fixed = sorted(side for side in sides if side != TARGET)
    words = ["the precision's bits"] if TARGET in sides else []
    words += [f"fixed at {bits} bits" for bits in fixed]
    return ", ".join(words)


def size_bytes(model: nn.Module) -> int:
    """Return the bytes the parameters would take: quantized weights at their bits, the rest as is.

    Scales and offsets of quantizers are counted as float32; codes are taken as packed.

    Example:
        >>> from quant import Precision, quantize
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
        >>> size_bytes(net), size_bytes(quantize(net, "lsq", Precision(4, 4)))
        (3168, 1160)
    """
    bits = 0
    packed = set()
    for module in model.modules():
        if isinstance(module, WeightQuantized) and module.w_quant is not None:
            width = module.w_quant.bits
            if width < OFF:
                bits += module.weight.numel() * width
                packed.add(module.weight)
                if not list(module.w_quant.parameters()):  # scales found anew from the weights
                    bits += 32 * (module.w_quant.channels or 1)
    bits += sum(8 * p.element_size() * p.numel() for p in model.parameters() if p not in packed)
    return -(-bits // 8)


def bitops(model: nn.Module, inputs: Any) -> int:
    """Return the bit-operations of one forward pass: Σ MACs x weight bits x activation bits.

    MACs are fvcore's count for each convolution and linear layer. A layer's activation bits are
    those of the tensor that enters it: of its own input quantizer, or of the activation module that
    made the tensor (max-pooling keeps them).

    Args:
        model: quantized or not (32 x 32 then), on the inputs' device.
        inputs: what `model(inputs)` takes.
    """
    from fvcore.nn import FlopCountAnalysis

    entering = _entering_bits(model, inputs)
    counts = (
        FlopCountAnalysis(model, (inputs,))
        .unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .by_module()
    )
    total = 0
    for name, activation_bits in entering.items():
        layer = model.get_submodule(name)
        quantizer = getattr(layer, "w_quant", None)
        weight_bits = OFF if quantizer is None else quantizer.bits
        total += int(counts[name]) * weight_bits * activation_bits
    return total


@torch.no_grad()
def _entering_bits(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Bits of the tensor entering each convolution and linear layer, seen in one forward pass."""
    made: dict[int, int] = {}  # id of a tensor -> bits of the quantizer it came from
    alive: list[torch.Tensor] = []  # so that no id is used twice
    entering: dict[str, int] = {}

    def enter(name: str):
        def hook(module, args):
            quantizer = getattr(module, "a_quant", None)
            own = OFF if quantizer is None else quantizer.bits
            entering[name] = min(own, made.get(id(args[0]), OFF))

        return hook

    def leave(module, args, output):
        if isinstance(output, torch.Tensor):
            kept = isinstance(module, nn.MaxPool2d | nn.Identity | nn.Flatten)
            bits = made.get(id(args[0]), OFF) if kept else module.a_quant.bits
            made[id(output)] = bits
            alive.append(output)

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_pre_hook(enter(name)))
        elif isinstance(module, ActivationQuantized | nn.MaxPool2d | nn.Identity | nn.Flatten):
            handles.append(module.register_forward_hook(leave))
    mode = model.training
    try:
        model.eval()(inputs)
    finally:
        model.train(mode)
        for handle in handles:
            handle.remove()
    return entering
