"""Separate norms and clips for each bit-width, selected by `set_precision`.

A module's class is changed in place, as in `lowbit.quant.layers`. Its own tensors keep their
state-dict names and belong to the widest bit-width; those of the others are in its child `at`,
under the same names: `bn1.weight` at 8 bits, `bn1.at.4.weight` at 4.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.quant.convert import LAST_NAMES, quantized_layers
from lowbit.quant.layers import Quantized, Switchable
from lowbit.quant.policies.rule import TARGET
from lowbit.quant.precision import Precision
from lowbit.quant.quantizers.base import is_recomputation


class _Copy(nn.Module):
    """Copies of some tensors of a module."""

    def __init__(self, original: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:
            tensor = _stored(original, name)
            if isinstance(tensor, nn.Parameter):
                copied = nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
                self.register_parameter(name, copied)
            else:
                self.register_buffer(name, None if tensor is None else tensor.clone())


def _stored(module: nn.Module, name: str) -> Tensor | None:
    kind = module._parameters if name in module._parameters else module._buffers
    return kind[name]


class PerBit:
    """Mixin of a module that has some of its tensors once per bit-width.

    Attributes:
        per_bit: names of those tensors.
        at: copies of them, by bit-width; a width without one uses the next higher's.
        widest: the bit-width whose tensors are the module's own.
    """

    per_bit: tuple[str, ...]
    at: nn.ModuleDict
    widest: int
    _width: str | None = None  # key in `at` of the tensors in use; None: the module's own

    def copy_for(self, bits: int) -> None:
        """Give `bits` its own tensors, initialized from the next higher bit-width's."""
        width = self._width_for(bits)
        self.at[str(bits)] = _Copy(self if width is None else self.at[width], self.per_bit)

    def switch_to(self, bits: int) -> None:
        """Use the tensors of `bits` from now on."""
        self._width = self._width_for(bits)

    def _width_for(self, bits: int) -> str | None:
        widths = [width for width in (*map(int, self.at), self.widest) if bits <= width]
        found = str(min(widths, default=self.widest))
        return found if found in self.at else None

    def __reduce_ex__(self, protocol):
        return _revive, (type(self).mixin, type(self).base), self.__getstate__()


def _in_use(name: str) -> property:
    """Return an attribute that reads the tensor `name` of the bit-width in use."""

    def read(self) -> Tensor | None:
        return _stored(self if self._width is None else self.at._modules[self._width], name)

    return property(read)


class SwitchableNorm(PerBit, Switchable):
    """Mixin of a batch norm with separate affine and statistics at each bit-width."""

    per_bit = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    weight, bias, running_mean, running_var, num_batches_tracked = map(_in_use, per_bit)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.track_running_stats and is_recomputation()):
            return super().forward(x)
        momentum, self.momentum = self.momentum, 0.0  # the first pass has updated the statistics
        try:
            return super().forward(x)
        finally:
            self.momentum = momentum
            self.num_batches_tracked.sub_(1)

    def set_precision(self, precision: Precision) -> None:
        self.switch_to(min(precision.weight_bits, precision.activation_bits))


class SwitchableClip(PerBit):
    """Mixin of a quantizer with a separate clipping level at each bit-width."""

    per_bit = ("q_scale",)
    q_scale = _in_use("q_scale")

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        type(self).base.bits.fset(self, bits)
        self.switch_to(bits)


@cache
def _class(mixin: type[PerBit], base: type[nn.Module]) -> type[nn.Module]:
    return type(f"Switchable{base.__name__}", (mixin, base), {"mixin": mixin, "base": base})


def _revive(mixin: type[PerBit], base: type[nn.Module]) -> nn.Module:
    cls = _class(mixin, base)
    return cls.__new__(cls)


def _switch(module: nn.Module, mixin: type[PerBit], bits: Sequence[int]) -> None:
    module.__class__ = _class(mixin, type(module))
    module.at, module.widest = nn.ModuleDict(), max(bits)
    for width in sorted(bits, reverse=True)[1:]:
        module.copy_for(width)


def make_adaptive(
    model: nn.Module, bits: Sequence[int], *, shared_clips: bool = False
) -> nn.Module:
    """Give every batch norm and every learned clip separate tensors at each bit-width, in place.

    Call it on a quantized and calibrated network: all bit-widths start from its tensors. Weights
    stay shared; `set_precision` selects the tensors in use. The network is set to the widest afterwards.

    Args:
        model: from `lowbit.quant.quantize`.
        bits: B, the bit-widths to train, of weights and activations alike.
        shared_clips: share one clip per layer among all bit-widths (Switchable BN, SPEC D.5).

    Raises:
        ValueError: B is empty or has duplicates, or the network is not quantized or already adaptive.
    """
    layers = [m for m in model.modules() if isinstance(m, Quantized)]
    if not bits or len(set(bits)) < len(bits):
        raise ValueError(
            f"{tuple(bits)} is not a set of bit-widths; nothing was changed. Name at least one, each once."
        )
    if not layers or any(isinstance(m, PerBit) for m in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} is {'already adaptive' if layers else 'not quantized'}; "
            "nothing was changed. Call lowbit.quant.quantize and lowbit.quant.calibrate on a "
            "full-precision network first, then this once."
        )
    for norm in [m for m in model.modules() if isinstance(m, _BatchNorm)]:
        _switch(norm, SwitchableNorm, bits)
    for layer in layers:
        clip = layer.a_quant
        learned = clip is not None and clip.learned_clip
        if learned and layer.rule.activation == TARGET and not shared_clips:
            _switch(clip, SwitchableClip, bits)
    for module in model.modules():
        if isinstance(module, Switchable):
            module.set_precision(Precision(max(bits), max(bits)))
    return model


def add_width(model: nn.Module, bits: int) -> None:
    """Give an untrained bit-width its own norms, with the next higher one's affine (SPEC D.6).

    Clips need no copy: a bit-width without its own uses the next higher's. Statistics are those of
    another bit-width until `estimate_norms`.
    """
    for norm in model.modules():
        if isinstance(norm, SwitchableNorm) and bits != norm.widest and str(bits) not in norm.at:
            norm.copy_for(bits)


class _HeadScale(nn.Module):
    """The factor 1/(sqrt(classes) std(w_q)) on a classifier's quantized weight w_q, a constant to
    gradients (SAT's constant rescaling; AdaBits). It is computed from the weight at every bit-width."""

    initialized = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("q_scale", torch.tensor([classes**-0.5]))

    def forward(self, weight: Tensor) -> Tensor:
        deviation = weight.detach().std()
        return weight * (self.q_scale / torch.where(deviation > 0, deviation, 1.0))


def rescale_head(model: nn.Module) -> bool:
    """Divide a classifier's quantized weight by sqrt(classes) and by its standard deviation, in place;
    return whether that was done.

    DoReFa's values fill [-1, 1] and no norm follows a classifier: its logits would be too large to
    learn from (SAT, AdaBits).
    """
    found = False
    for name, layer in quantized_layers(model).items():
        if name.rpartition(".")[2] in LAST_NAMES and layer.w_quant.fills_unit_range:
            layer.out_scale = _HeadScale(layer.weight.shape[0]).to(layer.weight.device)
            found = True
    return found
