"""Modules that multiply by a layer's weight themselves instead of calling the layer.

`F.linear(x, self.qkv.weight, bias)` passes by the layer's `forward` and, with it, its quantizers: timm's
BEiT, EVA and SwinV2 and torchvision's Swin compute their attention so, and torch's encoder layers read
all weights into one fused kernel where no gradient is needed. While such a module runs at low bits, its
products with a layer's weight are given to the layer, and fused kernels are off.
"""

import dis
import inspect
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lowbit.quant.layers import Converted, WeightQuantized, is_quantizing, quantized_class

_PRODUCTS = (F.linear, F.conv2d)
_PLACES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

# What a module may ask of a weight without computing with it.
_FACTS = frozenset({"dtype", "device", "shape", "size", "ndim", "dim", "is_cuda", "requires_grad"})


class ReadsWeights(Converted):
    """Mixin of a module whose `forward` reads the weights of layers below it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module, with each product by a layer's weight computed by the layer."""
        if not is_quantizing(self):
            return super().forward(*args, **kwargs)
        layers = [m for m in self.modules() if isinstance(m, WeightQuantized)]
        before = [layer._watched for layer in layers]
        for layer in layers:
            layer._watched = True
        try:
            with _LayersMultiply(layers):
                return super().forward(*args, **kwargs)
        finally:
            for layer, value in zip(layers, before, strict=True):
                layer._watched = value


class UnfusedEncoderLayer(ReadsWeights):
    """Mixin of an `nn.TransformerEncoderLayer`: its fused kernel is off while it quantizes."""

    @property
    def activation_relu_or_gelu(self) -> int:
        """Zero, for any other activation, keeps torch from the kernel."""
        return 0 if is_quantizing(self) else self.__dict__["activation_relu_or_gelu"]


class UnfusedEncoder(ReadsWeights):
    """Mixin of an `nn.TransformerEncoder`, which packs padded sequences for that kernel alone."""

    @property
    def use_nested_tensor(self) -> bool:
        """Whether to pack them."""
        return self.__dict__["use_nested_tensor"] and not is_quantizing(self)


class _LayersMultiply(TorchFunctionMode):
    """Hand each product with the weight of one of `layers` to that layer."""

    def __init__(self, layers: list[WeightQuantized]) -> None:
        super().__init__()
        self.layers = layers

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in _PRODUCTS:
            return function(*args, **kwargs)
        given = dict(zip(_PLACES, args, strict=False)) | kwargs
        for layer in self.layers:
            if given["weight"] is layer._parameters.get("weight"):
                given["input"] = layer.quantized_input(given["input"])
                given["weight"] = layer.quantized_weight()
                return layer.quantized_output(function(**given))
        return function(*args, **kwargs)


def let_layers_multiply(model: nn.Module) -> None:
    """Convert, in place, the modules of `model` that read weights of quantized layers."""
    for module in model.modules():
        reads = not isinstance(module, Converted) and reads_weights(type(module))
        if reads and any(isinstance(m, WeightQuantized) for m in module.modules()):
            kinds = (c for base, c in _UNFUSED.items() if isinstance(module, base))
            mixin = next(kinds, ReadsWeights)
            module.__class__ = quantized_class(mixin, type(module))


_UNFUSED = {nn.TransformerEncoderLayer: UnfusedEncoderLayer, nn.TransformerEncoder: UnfusedEncoder}


@cache
def reads_weights(cls: type[nn.Module]) -> bool:
    """Whether `forward` of a class, or a function it names, reads some other module's weight.

    A look at its compiled code: an attribute `weight` is loaded, and not only to ask for its type or
    place.

    Example:
        >>> class Calls(nn.Linear):
        ...     def forward(self, x): return F.linear(x, self.weight)
        >>> class Reads(nn.Sequential):
        ...     def forward(self, x): return F.linear(x, self[0].weight)
        >>> reads_weights(Calls), reads_weights(Reads)
        (False, True)
    """
    todo = [vars(c)["forward"] for c in cls.__mro__ if "forward" in vars(c) and c is not nn.Module]
    seen: set[CodeType] = set()
    while todo:
        function = inspect.unwrap(todo.pop())
        if not isinstance(function, FunctionType) or function.__code__ in seen:
            continue
        seen.add(function.__code__)
        for code in _codes(function.__code__):
            if _loads_a_weight(code):
                return True
            own = (getattr(cls, name, None) for name in code.co_names if name not in _INHERITED)
            free = (function.__globals__.get(name) for name in code.co_names)
            todo += [f for f in (*own, *free) if isinstance(f, FunctionType) and not _of_torch(f)]
    return False


_INHERITED = frozenset(dir(nn.Module))


def _of_torch(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] == "torch"


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _loads_a_weight(code: CodeType) -> bool:
    if "weight" in code.co_consts:  # getattr(layer, "weight")
        return True
    if "weight" not in code.co_names:
        return False
    steps = [None, *dis.get_instructions(code), None]
    for before, step, after in zip(steps, steps[1:], steps[2:], strict=False):
        if step is not None and step.opname == "LOAD_ATTR" and step.argval == "weight":
            own = before.opname.startswith("LOAD_FAST") and before.argval == "self"
            if not own and after.argval not in _FACTS:
                return True
    return False
