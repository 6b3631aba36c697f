"""Quantize a network, set its bits, calibrate it, and undo the quantization."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lowbit.quant.layers import (
    ActivationQuantized,
    OutputScale,
    Quantized,
    Switchable,
    WeightQuantized,
    quantized_class,
)
from lowbit.quant.policy import FULL, QuantizerSpec, QuantPolicy, Rule, get_policy, resolve_bits
from lowbit.quant.precision import FP, OFF, Precision
from lowbit.quant.quantizers.base import Quantizer

# Activation modules for policies that quantize outputs.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.PReLU, nn.LeakyReLU)

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_PASSING = (nn.Identity, nn.Dropout)

# Attributes that `quantize` adds to a module.
_ADDED = (
    "w_quant",
    "a_quant",
    "out_scale",
    "rule",
    "policy_fingerprint",
    "quantizes_output",
    "_reused",
)

# Last component of the module names of classifiers and predictors.
LAST_NAMES = frozenset(
    {
        # timm and torchvision, classification
        "fc",
        "classifier",
        "head",
        "head_dist",
        # Detectron2
        "cls_score",
        "bbox_pred",
        # torchvision, detection
        "cls_logits",
        "bbox_reg",
    }
)


def quantize(
    model: nn.Module, policy: QuantPolicy | str | dict, precision: Precision | str = FP
) -> nn.Module:
    """Quantize the layers of `model` that `policy` names, in place, and return it.

    Each convolution and linear layer's class is changed; weights keep their state-dict names. Load
    weights before this call: learned weight scales are set from the current weights. Called again
    with the same policy, it only sets the precision.

    Args:
        model: any network.
        policy: a policy, its name or its dictionary.
        precision: bits to start at; FP leaves every output bit-equal.

    Raises:
        ValueError: another policy has quantized the model, or this one matches no layer.
    """
    policy, precision = get_policy(policy), Precision.parse(precision)
    before = {m.policy_fingerprint for m in model.modules() if isinstance(m, Quantized)}
    if before == {policy.fingerprint}:
        set_precision(model, precision)
        return model
    if before:
        raise ValueError(
            f"this model is already quantized, by another policy than {policy.name!r}; nothing was "
            "changed. Call dequantize(model) first."
        )
    outputs = policy.activation_side == "output"
    bare = _bare_layers(model) if outputs else set()
    found, bare_stem = 0, False
    for name, module, first in list(_weight_sites(model)):
        bare_stem |= first and name in bare
        last = name.rpartition(".")[2] in LAST_NAMES
        rule = policy.rule(name, first=first, last=last)
        if outputs and name not in bare:
            rule = Rule(rule.weight, FULL)
        found += _quantize_module(module, WeightQuantized, policy, rule, precision)
    if outputs:
        for name, module, first in _activation_sites(model):
            rule = policy.rule(name, first=first and not bare_stem, last=False)
            rule = Rule(FULL, rule.activation)
            _quantize_module(module, ActivationQuantized, policy, rule, precision)
    if not found:
        raise ValueError(
            f"policy {policy.name!r} matches no layer of this {type(model).__name__}; nothing was "
            "quantized. Check its rules: lowbit.quant.get_policy(...).rules."
        )
    set_precision(model, precision)
    return model


def _weight_sites(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield name, layer, and whether it is the first convolution."""
    first = True
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module, first
            first = False
        elif isinstance(module, nn.Linear):
            yield name, module, False


def _bare_layers(model: nn.Module) -> set[str]:
    """Return the names of layers whose output neither a norm nor an activation follows.

    Only transformers have them: patch embedding, qkv, projections and the end of an MLP. Their output
    is the next layer's input, as an activation module's output is elsewhere. A convolution
    other than the first is assumed to be followed by a norm, regardless of module order.
    """
    bare = set()
    for name, layer, first in _weight_sites(model):
        if not (first or isinstance(layer, nn.Linear)) or name.rpartition(".")[2] in LAST_NAMES:
            continue
        siblings = list(model.get_submodule(name.rpartition(".")[0]).children())
        behind = siblings[siblings.index(layer) + 1 :] if layer in siblings else []
        following = next((m for m in behind if not isinstance(m, _PASSING)), None)
        if not isinstance(following, (*ACTIVATIONS, *_NORMS)):
            bare.add(name)
    return bare


def _activation_sites(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield name, activation module, and whether it is the stem's."""
    sites = [(n, m) for n, m in model.named_modules() if isinstance(m, ACTIVATIONS)]
    for index, (name, module) in enumerate(sites):
        yield name, module, index == 0


def _quantize_module(
    module: nn.Module,
    mixin: type[Quantized],
    policy: QuantPolicy,
    rule: Rule,
    precision: Precision,
) -> bool:
    if rule == Rule(FULL, FULL):
        return False
    module.__class__ = quantized_class(mixin, type(module))
    module.rule, module.policy_fingerprint = rule, policy.fingerprint
    module.w_quant = module.a_quant = module.out_scale = None
    if rule.weight != FULL:
        weight = module.weight  # its step is set at the bits it will be trained at
        module.w_quant = _make(policy.weight, weight, "weight").to(weight.device)
        module.w_quant.bits = resolve_bits(rule.weight, precision.weight_bits)
        if not weight.is_meta:  # a meta network has no values and is only counted, see `costs`
            module.w_quant.init_from(weight)
    if rule.activation != FULL:
        module.quantizes_output = policy.activation_side == "output"
        module.a_quant = _make(policy.activation, None, "activation")
        device = next((p.device for p in module.parameters()), None)
        module.a_quant.to(device)
    if _needs_output_scale(module):
        module.out_scale = OutputScale(module.w_quant.scale_shape).to(module.weight.device)
    return True


def _needs_output_scale(module: nn.Module) -> bool:
    """Whether quantization loses the scale of this layer's output and no normalization follows.

    A layer in front of a normalization has no bias, in every network here; one with its norm inside
    (Detectron2's Conv2d) has it as an attribute.
    """
    if module.w_quant is None or module.a_quant is None:
        return False
    normalized = getattr(module, "bias", None) is None or getattr(module, "norm", None) is not None
    return (module.w_quant.rescales or module.a_quant.rescales) and not normalized


def _make(spec: QuantizerSpec, weight: torch.Tensor | None, role: str) -> Quantizer:
    place: dict[str, Any] = {"role": role}
    if weight is not None:
        place["ndim"] = weight.dim()
    if spec.granularity == "channel":
        if weight is None:
            raise ValueError(
                "activations have one scale per tensor, but the policy requests one per channel; nothing "
                "was quantized. Set the activation's granularity to 'tensor'."
            )
        place["channels"] = weight.shape[0]
    return spec.build(**place)


def dequantize(model: nn.Module) -> nn.Module:
    """Undo `quantize`, in place: restore every module's class and remove its quantizers."""
    for module in list(model.modules()):
        if isinstance(module, Quantized):
            base = module.base
            for name in _ADDED:
                module._modules.pop(name, None)
                module.__dict__.pop(name, None)
            module.__class__ = base
    return model


def _is_broken(module: nn.Module) -> bool:
    if not isinstance(module, Quantizer) or module.role != "activation" or not module.initialized:
        return False
    state = [*module.parameters(), *module.buffers()]
    return not all(bool(tensor.isfinite().all()) for tensor in state)


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose weight is quantized, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, WeightQuantized) and module.w_quant is not None
    }


def all_quantizers(model: nn.Module) -> list[Quantizer]:
    """Return every quantizer of `model`."""
    return [module for module in model.modules() if isinstance(module, Quantizer)]


def scales(model: nn.Module) -> list[nn.Parameter]:
    """Return the learned parameters of quantizers: scales, offsets, bounds and output scales."""
    owners = [m for m in model.modules() if isinstance(m, Quantizer | OutputScale)]
    return [p for owner in owners for p in owner.parameters() if p.requires_grad]


def set_precision(model: nn.Module, precision: Precision | str) -> None:
    """Set the bits of every quantizer in `model`; FP turns all of them off exactly."""
    precision = Precision.parse(precision)
    for module in model.modules():
        if isinstance(module, Switchable):
            module.set_precision(precision)


@contextmanager
def observe(model: nn.Module, *, reset: bool = True) -> Iterator[None]:
    """Set activation ranges from full-precision passes within the block (SSQL's first step).

    On exit every activation quantizer has its scale and its previous bit-width.

    Args:
        model: a quantized model.
        reset: discard earlier observations.
    """
    weights = [layer.w_quant for layer in quantized_layers(model).values()]
    activations = [q for q in all_quantizers(model) if q.role == "activation"]
    bits = [q.bits for q in weights]
    for q in weights:
        q._bits = OFF
    for q in activations:
        if reset:
            q.reset()
        q.observing = True
    try:
        yield
    finally:
        for q, b in zip(weights, bits, strict=True):
            q._bits = b
        for q in activations:
            q.observing = False
            q.finish()


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any], *, images: int | None = None) -> int:
    """Set every activation quantizer's scale from training images; return their number.

    The passes are in eval mode and full precision, so one calibration serves every bit-width, and
    batch normalization does not change. Mode and precision are restored afterwards. Output scales start
    here too: the network then has every tensor that a forward pass needs.

    Set the precision that the network will be trained at before this: the parameters of LSQ and LSQ+
    are then the steps at those bits (`LearnedStep`).

    Args:
        model: a quantized model.
        batches: inputs `model(batch)` accepts, with a length; each is one forward pass.
        images: stop after this many, cutting the last batch; None uses all of them.

    Raises:
        ValueError: there was no batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    count = 0
    try:
        with observe(model):
            for batch in batches:
                if images is not None and len(batch) > images - count:
                    batch = batch[: images - count]
                if len(batch) == 0:
                    break
                model(batch)
                count += len(batch)
    finally:
        for module, mode in modes:
            module.training = mode
    for layer in quantized_layers(model).values():
        layer.start_output_scale()
    broken = [name for name, q in model.named_modules() if _is_broken(q)]
    if broken:
        raise FloatingPointError(
            f"NaN or infinity entered {broken[0]}{f' and {len(broken) - 1} more' * (len(broken) > 1)} "
            "while calibrating; the scales are unusable. The network has diverged, or an image is not "
            "finite: check the checkpoint and the images' normalization."
        )
    if count == 0:
        raise ValueError(
            "calibration got no images; activations have no ranges. Pass at least one batch."
        )
    return count
