"""Quantized layers, made by changing a layer's class in place so that parameters keep their names.

`WeightQuantized` and `ActivationQuantized` are mixins put in front of the class a module already has.
The module stays the same object with the same state-dict keys; only the children `w_quant` and
`a_quant` are new. Wrapping or parametrizing it would rename keys and defeat initializers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.quant.policies.rule import Rule, resolve_bits
from lowbit.quant.precision import Precision
from lowbit.quant.quantizers.base import Quantizer


class Switchable:
    """A module that follows `set_precision`, whether or not it quantizes."""

    def set_precision(self, precision: Precision) -> None:
        """Switch to `precision`."""
        raise NotImplementedError


class Converted:
    """Common base of modules whose class `quantize` changed: the original class.

    Attributes:
        base: the class it had.
        mixin: what was put in front of it.
    """

    base: type[nn.Module]
    mixin: type["Converted"]

    def __reduce_ex__(self, protocol):
        # Classes made by `quantized_class` cannot be found by name; pickle their ingredients.
        return _revive, (self.mixin, self.base), self.__getstate__()


class Quantized(Converted, Switchable):
    """Common base of quantized modules: rule, policy and quantizers."""

    rule: Rule
    policy_fingerprint: str
    w_quant: Quantizer | None
    a_quant: Quantizer | None

    def set_precision(self, precision: Precision) -> None:
        """Set each quantizer to the bits of this module's rule at `precision`."""
        if self.w_quant is not None:
            self.w_quant.bits = resolve_bits(self.rule.weight, precision.weight_bits)
        if self.a_quant is not None:
            self.a_quant.bits = resolve_bits(self.rule.activation, precision.activation_bits)


class OutputScale(nn.Module):
    """A learned factor for the output of a layer whose quantizers lose the scale of their input.

    Where a normalization follows, that loss does not matter; elsewhere (a detector's FPN and heads, a
    transformer) this restores the scale. It starts at exactly the factor the quantizers removed and is
    multiplied into the quantized weight, since conv(x, o w) = o conv(x, w): a bias, norm or activation
    inside the layer is unaffected, and a weight is smaller than an output.
    """

    scale_lr_factor = Quantizer.scale_lr_factor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.q_scale = nn.Parameter(torch.ones(shape))
        self.register_buffer("q_state", torch.zeros(1))
        self.initialized = False

    def forward(self, weight: Tensor) -> Tensor:
        """Return a quantized weight times the factor."""
        return weight * self.q_scale

    @torch.no_grad()
    def init_from(self, gain: Tensor | float) -> None:
        """Start at `gain`, the product of the factors that the weight and input quantizers removed."""
        self.q_scale.copy_(torch.as_tensor(gain))  # one number, or one per channel
        self.q_state.fill_(1)
        self.initialized = True

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.follow_buffers()

    def follow_buffers(self) -> None:
        """Set `initialized` from its buffer."""
        self.initialized = bool(self.q_state)


class WeightQuantized(Quantized):
    """Mixin of a layer with a weight: quantizes the weight and, given `a_quant`, the input.

    If `quantizes_output` is set, `a_quant` quantizes the output instead.
    """

    out_scale: nn.Module | None
    quantizes_output = False

    # Quantized weights of this step by bits, while `reuse_weights` is open.
    _reused: dict[tuple[int, bool], Tensor] | None = None

    # Whether a module that reads weights is running (`lowbit.quant.structure.weight_reads`).
    _watched = False

    def quantized_weight(self) -> Tensor:
        """Return the weight at the current bits; the latent weight when off."""
        quantizer = self.w_quant
        if quantizer is None or not quantizer.active:
            # An alias tells this layer's own product from one with the parameter itself.
            return self.weight.view_as(self.weight) if self._watched else self.weight
        if self._reused is None:
            return self._quantize_weight()
        key = (quantizer.bits, torch.is_grad_enabled())
        if key not in self._reused:
            self._reused[key] = self._quantize_weight()
        return self._reused[key]

    def _quantize_weight(self) -> Tensor:
        weight = self.w_quant(self.weight)
        if self.out_scale is None:
            return weight
        if not self.out_scale.initialized:
            self.out_scale.follow_buffers()
        if not self.out_scale.initialized:  # this network was not calibrated
            self.start_output_scale()
        return self.out_scale(weight)

    @torch.no_grad()
    def start_output_scale(self) -> None:
        """Let an output scale, if there is one, start at the factor that the quantizers remove.

        Does nothing while the input has no scale."""
        if isinstance(self.out_scale, OutputScale) and self.a_quant.ready:
            self.out_scale.init_from(self.w_quant.gain * self.a_quant.gain)

    def quantized_input(self, x: Tensor) -> Tensor:
        """Return the layer's input, quantized if the input side is quantized."""
        return x if self.a_quant is None or self.quantizes_output else self.a_quant(x)

    def quantized_output(self, y: Tensor) -> Tensor:
        """Return the layer's output, quantized if the output side is quantized."""
        return self.a_quant(y) if self.quantizes_output else y

    def forward(self, x: Tensor) -> Tensor:
        # The base class reads self.weight, whatever else it does (padding, norm, activation):
        # during its forward pass an instance attribute hides the parameter.
        x = self.quantized_input(x)
        self.__dict__["weight"] = self.quantized_weight()
        try:
            return self.quantized_output(super().forward(x))
        finally:
            del self.__dict__["weight"]


class _Conv2d(WeightQuantized, nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = self.quantized_input(x), self.quantized_weight()
        return self.quantized_output(nn.Conv2d._conv_forward(self, x, weight, bias))

    forward = nn.Conv2d.forward


class QuantizedLinear(WeightQuantized, nn.Linear):
    """A quantized `nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.quantized_output(
            F.linear(self.quantized_input(x), self.quantized_weight(), self.bias)
        )


class ActivationQuantized(Quantized):
    """Mixin of a module without weights: quantizes its output."""

    def forward(self, *args, **kwargs) -> Tensor:
        return self.a_quant(super().forward(*args, **kwargs))


class _ReLU(ActivationQuantized, nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        y = None if _is_watched(self.a_quant) else self.a_quant.rectified(x)
        return self.a_quant(nn.ReLU.forward(self, x)) if y is None else y


def _is_watched(module: nn.Module) -> bool:
    """Whether a hook, or a stand-in for `forward`, waits for calls of a module."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return bool(hooks) or "forward" in module.__dict__


_DIRECT = {
    (WeightQuantized, nn.Conv2d): _Conv2d,
    (WeightQuantized, nn.Linear): QuantizedLinear,
    (ActivationQuantized, nn.ReLU): _ReLU,
}


@cache
def quantized_class(mixin: type[Converted], base: type[nn.Module]) -> type[nn.Module]:
    """Return `base` with `mixin` placed before it; one class for each pair."""
    if (mixin, base) in _DIRECT:
        cls = _DIRECT[mixin, base]
        cls.base, cls.mixin = base, mixin
        return cls
    return type(f"Quantized{base.__name__}", (mixin, base), {"base": base, "mixin": mixin})


def is_quantizing(module: nn.Module) -> bool:
    """Whether any quantizer in `module` is on or observing."""
    return any(isinstance(m, Quantizer) and (m.active or m.observing) for m in module.modules())


def _revive(mixin: type[Converted], base: type[nn.Module]) -> nn.Module:
    cls = quantized_class(mixin, base)
    return cls.__new__(cls)


@contextmanager
def reuse_weights(model: nn.Module) -> Iterator[None]:
    """Quantize each weight once per bit-width within the block, for any number of views.

    The reused tensors carry their autograd graph, so gradients of all views meet in one backward pass
    through the quantizer. Leave the block before the optimizer steps.

    Example:
        >>> from lowbit.quant import get_policy, quantize, Precision
        >>> layer = quantize(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)),
        ...                  get_policy("cq"), Precision(4, 4))
        >>> with reuse_weights(layer):
        ...     loss = layer(torch.rand(2, 1, 3, 3)).sum() + layer(torch.rand(2, 1, 3, 3)).sum()
        >>> loss.backward()
    """
    layers = [m for m in model.modules() if isinstance(m, WeightQuantized)]
    for layer in layers:
        layer._reused = {}
    try:
        yield
    finally:
        for layer in layers:
            layer._reused = None
