"""Set the ranges of a quantized network's activations from training images."""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lowbit.quant.asked import require_asked
from lowbit.quant.convert import all_quantizers, quantized_layers
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.smoothing import smooth, smoothed_layers

_logger = logging.getLogger(__name__)


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
    for q in activations:
        if reset:
            q.reset()
    for q in (*weights, *activations):
        q.observing = True  # a layer then uses its latent weight
    try:
        yield
    finally:
        for q in (*weights, *activations):
            q.observing = False
        for q in activations:
            q.finish()


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any], *, images: int | None = None) -> int:
    """Set every activation quantizer's scale from training images; return their number.

    The passes are in eval mode and full precision, so one calibration serves every bit-width, and
    batch normalization does not change. Mode and precision are restored afterwards. Output scales start
    here too: the network then has every tensor that a forward pass needs.

    A policy with `smooth` first moves the range of single channels from the inputs of linear layers into
    their weights (`lowbit.quant.smoothing`), which takes a pass of its own over all batches; they are kept
    in memory meanwhile. A network that is smoothed already is not smoothed again.

    Set the precision that the network will be trained at before this: the parameters of LSQ and LSQ+
    are then the steps at those bits (`LearnedStep`).

    Args:
        model: a quantized model.
        batches: inputs `model(batch)` accepts, with a length; each is one forward pass.
        images: stop after this many, cutting the last batch; None uses all of them.

    Raises:
        ValueError: there was no batch, the passes went by a quantizer, or smoothing would change the
            network.
        FloatingPointError: NaN or infinity entered a quantizer.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    count = 0
    batches = _first(batches, images)
    try:
        if smoothed_layers(model):
            batches = list(batches)
            if batches:
                _smooth(model, batches)
        with observe(model), require_asked(model):
            for batch in batches:
                model(batch)
                count += len(batch)
            if count == 0:
                raise ValueError(
                    "calibration got no images; activations have no ranges. Pass at least one batch."
                )
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
    return count


def _first(batches: Iterable[Any], images: int | None) -> Iterator[Any]:
    """Yield batches up to an empty one or so many images."""
    count = 0
    for batch in batches:
        if images is not None and len(batch) > images - count:
            batch = batch[: images - count]
        if len(batch) == 0:
            return
        yield batch
        count += len(batch)


def _smooth(model: nn.Module, batches: list[Any]) -> None:
    """Smooth at full precision, and let weight quantizers start from the new weights.

    Hooks of quantizers wait for ranges to be observed; here they would be further readers of a norm.
    """
    states = [(q, q._bits, q._forward_pre_hooks, q._forward_hooks) for q in all_quantizers(model)]
    for q, *_ in states:
        q._bits = OFF  # not `bits`, whose setters do more
        q._forward_pre_hooks, q._forward_hooks = OrderedDict(), OrderedDict()
    try:
        count = smooth(model, batches)
    finally:
        for q, *state in states:
            q._bits, q._forward_pre_hooks, q._forward_hooks = state
    layers = smoothed_layers(model).values()
    if count:
        _logger.info("smoothed %d of %d linear layers", count, len(layers))
    elif not any(layer.smoothing.applied for layer in layers):
        _logger.warning("no norm's output is read by linear layers alone: nothing was smoothed")
    for layer in layers:
        if layer.w_quant is not None and layer.smoothing.applied:
            layer.w_quant.init_from(layer.weight)


def _is_broken(module: nn.Module) -> bool:
    if not isinstance(module, Quantizer) or module.role != "activation" or not module.initialized:
        return False
    state = [*module.parameters(), *module.buffers()]
    return not all(bool(tensor.isfinite().all()) for tensor in state)
