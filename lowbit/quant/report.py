"""Report a quantized network's layers and costs.

Quantization is simulated, so networks do not become smaller or faster. `size_bytes` gives what integer
hardware would store, `costs` that and the bit-operations it would compute, at several precisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from lowbit.quant.bit_operations import matrix_products
from lowbit.quant.convert import set_precision
from lowbit.quant.layers import Quantized, WeightQuantized
from lowbit.quant.policies.rule import FULL, TARGET
from lowbit.quant.precision import OFF, Precision


@dataclass(frozen=True)
class LayerReport:
    """One layer in `explain`; bits are the current ones, 32 if not quantized."""

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
                r.name,
                r.kind,
                r.weight,
                r.activation,
                _bits(r.weight_bits),
                _bits(r.activation_bits),
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
        >>> from lowbit.quant import Precision, quantize
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
            rows.append(_in_full_precision(name, type(module).__name__))
        elif isinstance(module, nn.MultiheadAttention) and not hasattr(module, "in_proj"):
            rows.append(_in_full_precision(f"{name}.in_proj".lstrip("."), "Linear"))
    return rows


def _in_full_precision(name: str, kind: str) -> LayerReport:
    return LayerReport(name, kind, "-", "-", OFF, OFF, "full precision by rule")


def _bits(bits: int) -> str:
    return "-" if bits >= OFF else str(bits)


def _quantizer(quantizer: nn.Module | None) -> str:
    return "-" if quantizer is None else f"{type(quantizer).__name__}, {quantizer.granularity}"


def _reason(module: Quantized) -> str:
    sides = {module.rule.weight, module.rule.activation} - {FULL}
    fixed = sorted(side for side in sides if side != TARGET)
    words = ["the precision's bits"] if TARGET in sides else []
    words += [f"fixed at {bits} bits" for bits in fixed]
    if getattr(module, "smoothing", None) is not None and module.smoothing.applied:
        words.append("smoothed")
    return ", ".join(words) or "full precision by rule"


def size_bytes(model: nn.Module) -> int:
    """Return the bytes the parameters would take: quantized weights at their bits, the rest unchanged.

    Scales and offsets of quantizers are counted as float32; codes are assumed packed.

    Example:
        >>> from lowbit.quant import Precision, quantize
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
                if not list(module.w_quant.parameters()):  # scales recomputed from the weights
                    bits += 32 * (module.w_quant.channels or 1)
    bits += sum(8 * p.element_size() * p.numel() for p in model.parameters() if p not in packed)
    return -(-bits // 8)


def costs(
    model: nn.Module, precisions: Iterable[Precision | str], inputs: Any
) -> dict[str, dict[str, int]]:
    """Return `weight_bytes` (`size_bytes`) and `bit_operations` (`bitops`) at each precision.

    One full-precision forward pass covers all precisions, so no calibration is needed and meta tensors
    suffice; the model is left at the last precision.

    Example:
        >>> import torch
        >>> from lowbit.quant import quantize
        >>> net = quantize(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)), "ssql")
        >>> costs(net, ["4w4a"], torch.rand(1, 3, 5, 5))  # first layer: 8 bits, images not quantized
        {'4w4a': {'weight_bytes': 248, 'bit_operations': 497664}}
    """
    products = matrix_products(model, inputs)
    found = {}
    for precision in precisions:
        set_precision(model, precision)
        found[str(precision)] = {
            "weight_bytes": size_bytes(model),
            "bit_operations": sum(product.bit_operations for product in products),
        }
    return found
