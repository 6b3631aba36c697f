"""Quantize a network, set its bits, and undo the quantization."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lowbit.quant.layers import (
    ActivationQuantized,
    Converted,
    OutputScale,
    Quantized,
    Switchable,
    WeightQuantized,
    quantized_class,
)
from lowbit.quant.policies.get_policy import get_policy
from lowbit.quant.policies.policy import QuantizerSpec, QuantPolicy
from lowbit.quant.policies.rule import FULL, Rule, resolve_bits
from lowbit.quant.precision import FP, Precision
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.smoothing import Smoothing
from lowbit.quant.structure.attention import (
    InputProjection,
    add_input_projection,
    attentions_to_quantize,
)
from lowbit.quant.structure.dataflow import DataflowError, outputs_read
from lowbit.quant.structure.weight_reads import let_layers_multiply

# Activation modules for policies that quantize outputs.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.PReLU, nn.LeakyReLU)

# Grid of what `QuantPolicy.integer_only` adds: 8 bits over the observed range.
_BETWEEN_LAYERS = QuantizerSpec("MinMax", "tensor", {"scheme": "affine", "range": "observed"})
_EIGHT = Rule(FULL, 8)

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_PASSING = (nn.Identity, nn.Dropout)

# Attributes that `quantize` adds to a module.
_ADDED = (
    "w_quant",
    "a_quant",
    "out_scale",
    "smoothing",
    "rule",
    "policy_fingerprint",
    "quantizes_output",
    "_reused",
    "_watched",
    "in_proj",
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

    The class of each convolution and linear layer is changed, and that of modules which compute with a
    layer's weight themselves (`lowbit.quant.structure.weight_reads`, `lowbit.quant.structure.attention`); weights keep
    their state-dict names. Load weights before this call: learned weight scales are set from the
    current weights. Called again with the same policy, it only sets the precision.

    Args:
        model: any network.
        policy: a policy, its name or its dictionary.
        precision: bits to start at; FP leaves every output bit-equal.

    Raises:
        ValueError: another policy has quantized the model, this one matches no layer, or it matches an
            attention that cannot be quantized; or the policy is `integer_only` and the network adds what
            has no place for a grid.
    """
    policy, precision = get_policy(policy), Precision.parse(precision)
    fingerprint = policy.fingerprint
    before = {m.policy_fingerprint for m in model.modules() if isinstance(m, Quantized)}
    if before == {fingerprint}:
        set_precision(model, precision)
        return model
    if before:
        raise ValueError(
            f"this model is already quantized, by another policy than {policy.name!r}; nothing was "
            "changed. Call dequantize(model) first."
        )
    outputs = policy.activation_side == "output"
    between = _between_layers(model, outputs) if policy.integer_only else []
    bare = _bare_layers(model)
    sites, bare_stem = [], False
    for name, module, first in _weight_sites(model):
        bare_stem |= first and name in bare
        last = name.rpartition(".")[2] in LAST_NAMES
        rule = policy.rule(name, first=first, last=last)
        if outputs and name not in bare:
            rule = Rule(rule.weight, FULL)
        sites.append((name, module, rule))
    attentions = attentions_to_quantize(sites)
    found = 0
    for name, module, rule in sites:
        if isinstance(module, nn.MultiheadAttention):
            if module not in attentions:
                continue
            module = add_input_projection(module)
        found += _quantize_module(
            module, WeightQuantized, policy, rule, precision, bare=name in bare
        )
    if outputs:
        for name, module, first in _activation_sites(model):
            rule = policy.rule(name, first=first and not bare_stem, last=False)
            rule = Rule(FULL, rule.activation)
            _quantize_module(module, ActivationQuantized, policy, rule, precision)
    if policy.integer_only:
        for module in between:
            if not _returns_codes(module):
                _quantize_module(
                    module, ActivationQuantized, policy, _EIGHT, precision, grid=_BETWEEN_LAYERS
                )
        if outputs:
            _quantize_image(next(module for _, module, first in _weight_sites(model) if first))
    if not found:
        raise ValueError(
            f"policy {policy.name!r} matches no layer of this {type(model).__name__}; nothing was "
            "quantized. Check its rules: lowbit.quant.get_policy(...).rules."
        )
    for module in model.modules():
        if isinstance(module, Quantized):
            module.policy_fingerprint = fingerprint
    let_layers_multiply(model)
    set_precision(model, precision)
    return model


def _between_layers(model: nn.Module, outputs: bool) -> list[nn.Module]:
    """Return the modules whose outputs need a grid where no layer has one for its input."""
    try:
        names = outputs_read(model, by_convolutions=outputs)
    except DataflowError as error:
        raise ValueError(
            f"this {type(model).__name__} cannot compute on integers alone: {error}; nothing was "
            "quantized. Use a policy without integer_only, such as ssql or lsq."
        ) from error
    return [model.get_submodule(name) for name in names]


def _returns_codes(module: nn.Module) -> bool:
    """Whether a module's output is on a grid already; timm's norms have their activation inside."""
    inside = module.children() if isinstance(module, _NORMS) else ()
    return any(isinstance(m, Quantized) for m in (module, *inside))


def _quantize_image(stem: nn.Module) -> None:
    """Give the first layer a grid for its input, where a policy quantizes outputs."""
    stem.rule = Rule(stem.rule.weight, 8)
    stem.a_quant = _make(_BETWEEN_LAYERS, None, "activation").to(stem.weight.device)
    stem.quantizes_output = False


def _weight_sites(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield name, layer, and whether it is the first convolution.

    The layer `in_proj` of an `nn.MultiheadAttention`, which has only parameters for it, is given as the
    attention itself.
    """
    first = True
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module, first
            first = False
        elif isinstance(module, nn.Linear):
            yield name, module, False
        elif isinstance(module, nn.MultiheadAttention):
            yield f"{name}.in_proj".lstrip("."), module, False


def _bare_layers(model: nn.Module) -> set[str]:
    """Return the names of layers whose output neither a norm nor an activation follows.

    Only transformers have them: patch embedding, qkv, projections and the end of an MLP. Their output
    is the next layer's input, as an activation module's output is elsewhere. A convolution
    other than the first is assumed to be followed by a norm, regardless of module order.
    """
    bare = set()
    for name, layer, first in _weight_sites(model):
        linear = isinstance(layer, nn.Linear | nn.MultiheadAttention)
        if not (first or linear) or name.rpartition(".")[2] in LAST_NAMES:
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
    *,
    bare: bool = False,
    grid: QuantizerSpec | None = None,
) -> bool:
    projection = isinstance(module, InputProjection)  # the output's may be quantized alone
    if rule == Rule(FULL, FULL) and not projection:
        return False
    if not projection:
        module.__class__ = quantized_class(mixin, type(module))
    module.rule = rule
    module.w_quant = module.a_quant = module.out_scale = None
    if rule.weight != FULL:
        weight = module.weight  # its step is set at the bits it will be trained at
        module.w_quant = _make(policy.weight, weight, "weight").to(weight.device)
        module.w_quant.bits = resolve_bits(rule.weight, precision.weight_bits)
        if not weight.is_meta:  # a meta network has no values and is only counted, see `costs`
            module.w_quant.init_from(weight)
    if rule.activation != FULL:
        module.quantizes_output = policy.activation_side == "output"
        module.a_quant = _make(grid or policy.activation, None, "activation")
        device = next((p.device for p in module.parameters()), None)
        module.a_quant.to(device)
        if policy.smooth is not None and isinstance(module, nn.Linear):
            module.smoothing = Smoothing(policy.smooth, module.in_features).to(module.weight)
    if _needs_output_scale(module, bare=bare):
        module.out_scale = OutputScale(module.w_quant.scale_shape).to(module.weight.device)
    return rule != Rule(FULL, FULL)


def _needs_output_scale(module: nn.Module, *, bare: bool) -> bool:
    """Whether quantization loses the scale of this layer's output and no normalization follows.

    A convolution in front of a normalization has no bias, in every network here; one with its norm
    inside (Detectron2's Conv2d) has it as an attribute. A linear layer may have none though no
    normalization follows: `bare` says so (BEiT's qkv, whose biases are the attention's own).
    """
    if module.w_quant is None or module.a_quant is None:
        return False
    if bare and isinstance(module, nn.Linear):
        return module.w_quant.rescales or module.a_quant.rescales
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
    """Undo `quantize`, in place: restore every module's class and remove its quantizers.

    Weights that were smoothed stay so, with the norms before them: the network computes the same.
    """
    for module in list(model.modules()):
        if isinstance(module, Converted):
            base = module.base
            for name in _ADDED:
                module._modules.pop(name, None)
                module.__dict__.pop(name, None)
            module.__class__ = base
    return model


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
