"""Bit-operations of a forward pass: its matrix products, each at the bits of both operands.

Convolutions, linear layers and attention's two products count alike, in a module or not. The pass
runs in full precision and records which quantizer made each operand, so one pass serves every precision.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lowbit.quant.convert import all_quantizers, quantized_layers
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.structure.unfused_attention import unfused_attention

_aten = torch.ops.aten

# Operations whose output holds the codes of their input, and at most a zero or another factor.
# Views need no entry: they share their input's storage.
_KEEP_CODES = {
    _aten._to_copy,
    _aten._unsafe_view,
    _aten.cat,
    _aten.clone,
    _aten.constant_pad_nd,
    _aten.gather,
    _aten.im2col,
    _aten.index,
    _aten.index_select,
    _aten.max_pool2d_with_indices,
    _aten.repeat,
    _aten.roll,
    _aten.stack,
    _aten.upsample_nearest2d,
}
_SCALE = {_aten.mul, _aten.div}  # keep them if the other operand is one number

_Sources = frozenset[Quantizer]  # what quantized a tensor; several after concatenation


@dataclass(frozen=True)
class Product:
    """A matrix product and the quantizers of its operands; None: an operand is not quantized."""

    macs: int
    operands: tuple[_Sources | None, _Sources | None]

    @property
    def bit_operations(self) -> int:
        """MACs x the operands' current bits, 32 for one that is not quantized."""
        first, second = map(_bits, self.operands)
        return self.macs * first * second


def _bits(sources: _Sources | None) -> int:
    return OFF if sources is None else max(quantizer.bits for quantizer in sources)


def bitops(model: nn.Module, inputs: Any) -> int:
    """Return the bit-operations of one forward pass: Σ MACs x bits of one operand x bits of the other.

    The sum is over all matrix products: convolutions, linear layers, and attention's QKᵀ and AV. An
    operand's bits are those of the quantizer it comes from, through reshaping, max-pooling and the like
    in between, and 32 where there is none. QKᵀ and AV multiply two activations. Policies that quantize
    the inputs of layers quantize neither, so both count 32 x 32; where a policy quantizes outputs, Q, K
    and V have the activation bits unless something is added to them, and attention's weights A have 32.

    Args:
        model: quantized or not (32 x 32 then), on the inputs' device.
        inputs: what `model(inputs)` takes.
    """
    return sum(product.bit_operations for product in matrix_products(model, inputs))


@torch.no_grad()
def matrix_products(model: nn.Module, inputs: Any) -> list[Product]:
    """Follow one forward pass in eval mode and full precision; return its matrix products.

    Quantizers observe, so that they are called where they would quantize, but take no notes.
    """
    record = _Record()
    modes = [(module, module.training) for module in model.modules()]
    observing = [(quantizer, quantizer.observing) for quantizer in all_quantizers(model)]
    with ExitStack() as undo:
        for layer in quantized_layers(model).values():
            record.mark(layer.weight, layer.w_quant)
            undo.callback(layer.register_forward_pre_hook(record.enter).remove)
            undo.callback(layer.register_forward_hook(record.leave, always_call=True).remove)
        for quantizer, before in observing:
            quantizer.observing, quantizer.observe = True, _take_no_notes
            undo.callback(setattr, quantizer, "observing", before)
            undo.callback(delattr, quantizer, "observe")
            undo.callback(quantizer.register_forward_hook(record.quantized).remove)
        try:
            with unfused_attention(), record:
                model.eval()(inputs)
        finally:
            for module, mode in modes:
                module.training = mode
    return record.products


def _take_no_notes(x: Tensor) -> None:
    """Observe nothing."""


class _Record(TorchDispatchMode):
    """Records the matrix products that run within the block, and the quantizers of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []
        self._sources: dict[int, tuple[torch.UntypedStorage, _Sources]] = {}
        self._layers: list[nn.Module] = []  # quantized layers whose forward pass is running

    def mark(self, tensor: Tensor, quantizer: Quantizer) -> None:
        """Note that `quantizer` made this tensor."""
        self._set(tensor, frozenset({quantizer}))

    def enter(self, layer: nn.Module, args: Any) -> None:
        self._layers.append(layer)

    def leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._layers.pop()

    def quantized(self, quantizer: Quantizer, args: Any, output: Tensor) -> Tensor:
        """Replace a quantizer's output, its input in full precision, by a marked copy."""
        copy = output.clone()
        self.mark(copy, quantizer)
        return copy

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self._multiply(flop_registry[packet], packet, args, kwargs, out)
        elif packet in _KEEP_CODES or (packet in _SCALE and _is_number(args[1])):
            inputs = args[0] if isinstance(args[0], list | tuple) else args[:1]
            self._set(out if isinstance(out, Tensor) else out[0], self._common(inputs))
        elif func._schema.is_mutable:
            written = (a for a, s in zip(args, func._schema.arguments, strict=False) if s.is_write)
            for tensor in written:
                if isinstance(tensor, Tensor):
                    self._set(tensor, None)
        return out

    def _multiply(self, flops: Callable, packet: Any, args: Any, kwargs: Any, out: Any) -> None:
        first = 1 if packet in (_aten.addmm, _aten.baddbmm) else 0  # the bias comes before them
        operands = [self._common([tensor]) for tensor in args[first : first + 2]]
        if operands[1] is None and self._layers:  # a weight that the layer computes from its own
            operands[1] = frozenset({self._layers[-1].w_quant})
        macs = flops(*args, **kwargs, out_val=out) // 2
        self.products.append(Product(macs, tuple(operands)))

    def _common(self, tensors: Iterable[Tensor]) -> _Sources | None:
        """Return the quantizers of all the tensors; None if one of them has none."""
        found = [self._sources.get(tensor.untyped_storage()._cdata) for tensor in tensors]
        return None if None in found else frozenset().union(*(sources for _, sources in found))

    def _set(self, tensor: Tensor, sources: _Sources | None) -> None:
        storage = tensor.untyped_storage()
        if sources is None:
            self._sources.pop(storage._cdata, None)
        else:  # the storage is kept, so that no other takes its address
            self._sources[storage._cdata] = (storage, sources)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) or (isinstance(value, Tensor) and value.numel() == 1)
