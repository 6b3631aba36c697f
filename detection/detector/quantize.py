"""Quantize a detector's layers by scope and calibrate them on training images; for any engine.

Three scopes, each containing the previous one:

    backbone       the network, by the policy's usual rules and names (the stem is `first`)
    backbone+neck  also the pyramid: `neck.lateral.0`, `neck.output.0`, ..., from fine to coarse, and the
                   convolutions of added levels, `neck.added.*`
    full           also the heads: `head.` and the name within the detector; predictors are `last`

A rule such as {"neck.output.*": "fp"} of a policy therefore means the same for every engine. Whether a
layer's input has negative values is found during calibration: without a ReLU on the pyramid, its
outputs and the layers that read them do.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lowbit.detection.detector.parts import body, bottom_up, head, neck
from lowbit.detection.detector.quantization_report import count_quantized
from lowbit.quant import (
    Precision,
    Quantizer,
    QuantPolicy,
    Rule,
    calibrate,
    dequantize,
    quantize,
    quantized_layers,
)
from lowbit.quant.policies.named_policies import HEADS_FP

_logger = logging.getLogger(__name__)

SCOPES = ("backbone", "backbone+neck", "full")

# Predictors by the last component of their names, in addition to those in `quant`.
_PREDICTORS = ("objectness_logits", "anchor_deltas", "predictor")

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def quantize_detector(
    detector: nn.Module,
    policy: QuantPolicy,
    precision: Precision,
    *,
    batches: Iterable[list],
    scope: str = "backbone",
    trained: bool = True,
) -> None:
    """Quantize a detector and calibrate its ranges on training images, in place.

    Args:
        detector: the detector with its initial weights.
        policy: which layers, and how.
        precision: bits of weights and activations.
        batches: training images, as lists of the detector's inference inputs.
        scope: one of SCOPES.
        trained: whether the weights will be trained at this precision, or are only calibrated.

    Raises:
        ValueError: the detector cannot be quantized this way, or a layer got no input; it is unchanged.
        FloatingPointError: a layer's input is not finite; the detector is unchanged.
    """
    quantize_layers(detector, policy, precision, scope=scope)
    try:
        _require_norms(detector)
        if trained:
            _require_trainable(detector)
        with _watch_signs(detector) as signed:
            calibrate(_Calibration(detector, scope), batches)
        _require_ranges(detector)
    except (ValueError, FloatingPointError):
        dequantize(detector)
        raise
    layers = quantized_layers(detector)
    cut = [name for name in sorted(signed) if layers[name].a_quant.positive_only]
    if cut:
        _logger.warning(
            "%d layers (such as %s) get negative values, which their quantizer clips to zero: put a "
            "ReLU on the pyramid (fpn_relu), keep them in full precision by a rule, or use lsq",
            len(cut),
            cut[0],
        )
    count, learned = count_quantized(detector).values()
    _logger.info(
        "%s, scope %s: %d quantized layers, %d learned scales", precision, scope, count, learned
    )


def quantize_layers(
    detector: nn.Module, policy: QuantPolicy, precision: Precision | str = "FP", *, scope: str
) -> None:
    """Add the quantizers of a scope to a detector, in place; their ranges are loaded from a file.

    Raises:
        ValueError: the scope is unknown, or not possible with this policy or detector.
    """
    if scope not in SCOPES:
        raise ValueError(
            f"there is no scope {scope!r}; nothing was quantized. Use one of {', '.join(SCOPES)}."
        )
    parts = {"neck": neck(detector)} if scope != "backbone" else {}
    if scope == "full":
        parts["head"] = head(detector)
    parts = {name: part for name, part in parts.items() if len(part)}
    if scope != "backbone" and policy.activation_side == "output":
        raise ValueError(
            f"policy {policy.name!r} quantizes the outputs of activation modules, and a pyramid has "
            f"none; nothing was quantized at scope {scope}. Use scope backbone, or a policy that "
            "quantizes inputs, such as lsq."
        )
    if scope == "backbone+neck" and not parts:
        raise ValueError(
            "this detector has no pyramid between its backbone and its heads; nothing was quantized. "
            "Use scope backbone or full."
        )
    quantize(bottom_up(detector), policy, precision)
    if parts:
        kept = tuple(
            rule for rule in policy.rules if rule not in HEADS_FP
        )  # of pretraining's heads
        last = tuple((f"*.{name}", policy.last) for name in _PREDICTORS)
        beyond = replace(policy, first=Rule(), rules=(*kept, *last))
        quantize(nn.ModuleDict(parts), beyond, precision)


class _Calibration(nn.Module):
    """The part of a detector that a scope needs for its inputs; called with a list of images."""

    def __init__(self, detector: nn.Module, scope: str) -> None:
        super().__init__()
        self.detector, self.scope = detector, scope

    def forward(self, batch: list) -> Any:
        if self.scope == "full":
            self.detector(batch)
            return None  # detections, whose number and order rounding changes
        images = normalized(self.detector, batch)
        return (body(self.detector) if self.scope == "backbone" else self.detector.backbone)(images)


@contextmanager
def _watch_signs(detector: nn.Module) -> Iterator[set[str]]:
    """Collect the names of the quantized layers whose activation quantizer gets negative values."""
    found: set[str] = set()

    def watch(name: str):
        def hook(quantizer: nn.Module, inputs: tuple) -> None:
            if inputs[0].numel() and bool(inputs[0].amin() < 0):
                found.add(name)

        return hook

    layers = {n: m for n, m in quantized_layers(detector).items() if m.a_quant is not None}
    handles = [m.a_quant.register_forward_pre_hook(watch(name)) for name, m in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def normalized(detector: nn.Module, batch: list) -> Tensor:
    """Return images as the backbone receives them, (N, 3, H, W)."""
    if hasattr(detector, "preprocess_image"):
        return detector.preprocess_image(batch).tensor
    return detector.transform(batch)[0].tensors


def _require_norms(detector: nn.Module) -> None:
    """Refuse a quantizer that loses its layer's scale if neither a norm nor a scale restores it."""
    modules = dict(detector.named_modules())
    names = list(modules)
    held = []
    for name, layer in quantized_layers(detector).items():
        sides = [q for q in (layer.w_quant, layer.a_quant) if q is not None and q.rescales]
        if sides and layer.out_scale is None:
            behind = (modules[n] for n in names[names.index(name) + 1 :])
            norm = next((m for m in behind if _is_norm(m)), None)
            if norm is None or not any(p.requires_grad for p in norm.parameters(recurse=False)):
                held.append((name, type(sides[0]).__name__))
    if held:
        name, kind = held[0]
        raise ValueError(
            f"the {kind} quantizer fixes a layer's output range, which only a trainable batch norm "
            f"after it can undo, but those of {len(held)} layers (such as {name}) are frozen; nothing "
            "was quantized. Use NORM BN or SyncBN and freeze no quantized stage, or policy lsq."
        )


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or type(module).__name__.startswith("FrozenBatchNorm")


def _require_trainable(detector: nn.Module) -> None:
    layers = quantized_layers(detector)
    frozen = [name for name, layer in layers.items() if not layer.weight.requires_grad]
    if frozen:
        raise ValueError(
            f"{len(frozen)} of {len(layers)} layers to be quantized (such as {frozen[0]}) have frozen "
            "weights, which cannot adapt to their own quantization; nothing was quantized. Set "
            "FREEZE_AT to 0, or to 1 if the stem is in full precision."
        )


def _require_ranges(detector: nn.Module) -> None:
    """Refuse a quantizer that got no input during calibration.

    It would set its range during training, separately on each rank.
    """
    idle = [name for name, q in _activation_quantizers(detector) if not (q.initialized or q.ready)]
    if idle:
        raise ValueError(
            f"{len(idle)} activation quantizers (such as {idle[0]}) got no input from the calibration "
            "images, for example in a head without any region; nothing was quantized. Calibrate with "
            "more images, start from a detector that finds something, or keep the layer in full "
            "precision by a rule of the policy."
        )


def _activation_quantizers(detector: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    for name, module in detector.named_modules():
        if isinstance(module, Quantizer) and module.role == "activation":
            yield name, module
