"""Files of models' official training codes, converted by timm's own code for the network.

timm ships a function beside most of its networks that turns the file which the model's authors published
into its own state dict. It also fits tables of positions to another image size, which changes values
without a word: what it resized is left out here, as a tensor of another shape would be.
"""

import contextlib
import functools
import importlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lowbit.backbones.checkpoints.conversions.hub_models import from_hub
from lowbit.backbones.checkpoints.match import Containers, Shapes
from lowbit.backbones.networks.without_values import without_values

# Before the names of an official file where its training wrapped the network.
_PREFIXES = ("", "teacher.backbone.", "student.backbone.", "backbone.", "model.", "encoder.")
_FITTED = ("pos_embed", "patch_embed.proj.weight", "relative_position_bias_table")
_REFUSED = (KeyError, AttributeError, RuntimeError, ValueError, TypeError, IndexError)


Hub = Mapping[str, tuple[str, dict[str, Tensor]] | None]
"""Of each container what `from_hub` makes of it, which joins tensors: once a file, for all networks."""


def hub_tensors(containers: Containers) -> Hub:
    """Return what `converted` takes as `hub`."""
    return {path: from_hub(_tensors(stored)) for path, stored in containers.items()}


def converted(
    containers: Containers, architecture: str, wanted: Shapes, hub: Hub
) -> Iterator[tuple[str, Containers]]:
    """Yield what a file holds by the names of one of timm's networks, in each way that applies.

    Args:
        containers: of `lowbit.backbones.checkpoints.read_file.Contents`.
        architecture: the network.
        wanted: its tensors' shapes by name. A tensor that differs in dimensions of size 1 alone, as those
            of a 1x1 convolution and of a linear layer do, gets the shape that is wanted.
        hub: of `hub_tensors`.

    Yields:
        How it was read, and the file with one of its containers converted; other containers stay.
    """
    convert = _converter(architecture)
    for path, stored in containers.items():
        tensors = _tensors(stored)
        if found := hub[path]:
            family, named = found
            label = f"transformers {family}"
            yield label, {**containers, path: _shaped(named, wanted)}
            if convert and (fitting := _fitting(convert, named)):
                yield label, {**containers, path: _shaped(fitting, wanted)}
        for prefix in _PREFIXES if convert else ():
            inner = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
            if inner and (fitting := _fitting(convert, inner)):
                shaped = _shaped(fitting, wanted)
                other = {prefix + name: tensor for name, tensor in shaped.items()}
                yield "the model's own code, converted by timm", {**containers, path: other}


def _tensors(stored: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in stored.items() if isinstance(value, Tensor)}


@functools.cache
def _converter(architecture: str) -> Callable[[dict[str, Tensor]], Any] | None:
    """Return timm's conversion for a network; None: it has none, or the network is not timm's."""
    if not timm.is_model(architecture):
        return None
    with without_values():
        network: nn.Module = timm.create_model(architecture, num_classes=0)
    module = importlib.import_module(type(network).__module__)
    function = getattr(module, "checkpoint_filter_fn", None)
    return function and functools.partial(function, model=network)


def _fitting(convert: Callable[[dict[str, Tensor]], Any], tensors: Mapping[str, Tensor]):
    """Return the tensors as timm converts them, but for those that it resized; None: it cannot."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), _silent(), torch.no_grad():
            found = dict(convert(dict(tensors)))
    except _REFUSED:
        return None
    # timm takes for granted that these are zero where its network has none.
    dropped = [n for n, t in tensors.items() if n.endswith(".attn.qkv.bias") and t.any()]
    for name in dropped:
        if f"{name.removesuffix('qkv.bias')}q_bias" not in found:
            found[name] = tensors[name]
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    return {
        name: tensor
        for name, tensor in found.items()
        if isinstance(tensor, Tensor)
        and not (name.endswith(_FITTED) and tensor.untyped_storage().data_ptr() not in storages)
    }


def _shaped(tensors: Mapping[str, Tensor], wanted: Shapes) -> dict[str, Tensor]:
    return {
        name: tensor.reshape(wanted[name])
        if name in wanted and _larger_than_1(tensor.shape) == _larger_than_1(wanted[name])
        else tensor
        for name, tensor in tensors.items()
    }


def _larger_than_1(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size > 1]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what timm logs of a conversion that is only tried from the terminal."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
