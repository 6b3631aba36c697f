"""Find the layers that multiply a normalization's output, and nothing else that reads it.

What a network computes is watched while it runs, so it does not matter how modules are called or
whether a layer's weight is read by the module above it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

_NORMS = (F.layer_norm, F.rms_norm)

# Functions that only move elements.
_MOVES = frozenset(
    {
        "__getitem__",
        "clone",
        "contiguous",
        "expand",
        "flatten",
        "pad",
        "permute",
        "reshape",
        "roll",
        "squeeze",
        "transpose",
        "unflatten",
        "unsqueeze",
        "view",
    }
)


@dataclass(eq=False)
class NormReaders:
    """A normalization over the last dimension, of C channels, and what reads its output.

    Attributes:
        weight: its factor, (C,).
        bias: what it adds, (C,), or None.
        readers: weights, (O, C), of the linear layers that multiply its output; nothing else reads it.
        largest: the largest magnitude of each channel of that output, (C,).
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    readers: list[nn.Parameter]
    largest: Tensor


@dataclass(eq=False)
class _Norm:
    weight: nn.Parameter
    bias: nn.Parameter | None
    largest: Tensor | None = None
    readers: dict[int, nn.Parameter] = field(default_factory=dict)
    read_otherwise: bool = False


class WatchNorms(TorchFunctionMode):
    """Within the block, watch what forward passes of `model` do with outputs of its norms.

    Call `returned` with what each pass returns. Attention that `nn.MultiheadAttention` computes of one
    tensor counts as a linear layer. Norms without a learned factor are left out.

    Example:
        >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2))
        >>> with WatchNorms(net) as watch:
        ...     watch.returned(net(torch.rand(3, 4)))
        >>> [[reader is net[1].weight for reader in norm.readers] for norm in watch.found()]
        [[True]]
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters = {id(p): p for p in model.parameters()}
        self._norms: dict[int, _Norm] = {}  # by their factors' ids
        self._source: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> its norm
        self._used_otherwise: set[int] = set()  # parameters

    def returned(self, output: Any) -> None:
        """Note what the network returns: it is read outside."""
        for norm in self._sources(output):
            norm.read_otherwise = True

    def found(self) -> list[NormReaders]:
        """Return the norms whose output only linear layers read, in order of computation."""
        owners: dict[int, list[_Norm]] = {}
        for norm in self._norms.values():
            for reader in norm.readers:
                owners.setdefault(reader, []).append(norm)
        return [
            NormReaders(norm.weight, norm.bias, list(norm.readers.values()), norm.largest)
            for norm in self._norms.values()
            if norm.readers
            and not norm.read_otherwise
            and not self._used_otherwise & {id(norm.weight), id(norm.bias), *norm.readers}
            and all(len(owners[reader]) == 1 for reader in norm.readers)
        ]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            return output  # a shape, a type, a device
        allowed = self._recognize(function, args, kwargs, output)
        if allowed is None:
            allowed = set()
            for norm in self._sources((args, kwargs)):
                norm.read_otherwise = True
        given = {id(leaf) for leaf in tree_leaves((args, kwargs))} - allowed
        self._used_otherwise |= given & self._parameters.keys()
        return output

    def _recognize(
        self, function: Callable, args: tuple, kwargs: dict, output: Any
    ) -> set[int] | None:
        """Note a norm, a product or a move; return the ids of parameters used as such, or None."""
        if function in _NORMS:
            return self._norm(output, *_bound(args, kwargs, _LAYER_NORM))
        if function is F.linear:
            x, weight, bias = _bound(args, kwargs, ("input", "weight", "bias"))
            return self._product(x, weight, bias)
        if function is F.multi_head_attention_forward:
            query, key, value, weight, bias = _bound(args, kwargs, _ATTENTION)
            if query is key and key is value and weight is not None:
                return self._product(query, weight, bias)
            return None
        sources = self._sources((args, kwargs))
        if getattr(function, "__name__", "") in _MOVES and len(sources) == 1:
            moved = tree_map(self._as_channels, (args, kwargs))
            if _keeps_channels(function(*moved[0], **moved[1]), output):
                for leaf in tree_leaves(output):
                    self._source[leaf] = sources[0]
                return set()
        return None if sources else set()

    def _norm(self, output: Tensor, x: Tensor, shape: Any, weight: Any, bias: Any) -> set[int]:
        for norm in self._sources(x):
            norm.read_otherwise = True
        if id(weight) in self._parameters and len(tuple(shape)) == 1:
            norm = self._norms.setdefault(id(weight), _Norm(weight, bias))
            norm.read_otherwise |= bias is not norm.bias
            self._source[output] = norm
        return {id(weight), id(bias)}

    def _product(self, x: Tensor, weight: Any, bias: Any) -> set[int] | None:
        source = self._source.get(x)
        if source is None or id(weight) not in self._parameters:
            return (
                None if source is not None else {id(bias)}
            )  # the weight is used for another input
        largest = x.detach().abs().flatten(0, -2).amax(0) if x.dim() > 1 else x.detach().abs()
        if source.largest is not None:
            largest = torch.maximum(largest, source.largest)
        source.largest, source.readers[id(weight)] = largest, weight
        return {id(weight), id(bias)}

    def _sources(self, tree: Any) -> list[_Norm]:
        leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        found = (self._source.get(leaf) for leaf in leaves)
        return list({id(norm): norm for norm in found if norm is not None}.values())

    def _as_channels(self, leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf in self._source):
            return leaf
        return torch.arange(1, leaf.shape[-1] + 1, device=leaf.device).expand(leaf.shape)


_LAYER_NORM = ("input", "normalized_shape", "weight", "bias")
_ATTENTION = ("query", "key", "value", "in_proj_weight", "in_proj_bias")
_ATTENTION_PLACES = {"query": 0, "key": 1, "value": 2, "in_proj_weight": 5, "in_proj_bias": 6}


def _bound(args: tuple, kwargs: dict, names: tuple[str, ...]) -> tuple:
    """Return arguments by their names, None for those that are missing."""
    places = _ATTENTION_PLACES if names is _ATTENTION else {n: i for i, n in enumerate(names)}
    return tuple(
        kwargs.get(name, args[places[name]] if places[name] < len(args) else None) for name in names
    )


def _keeps_channels(moved: Any, output: Any) -> bool:
    """Whether elements of channel c, numbered c + 1, or zeros are all that is in the last dimension at c."""
    for numbers, leaf in zip(tree_leaves(moved), tree_leaves(output), strict=True):
        if not isinstance(leaf, Tensor) or leaf.dim() == 0:
            return False
        wanted = torch.arange(1, leaf.shape[-1] + 1, device=leaf.device)
        if not bool(((numbers == wanted) | (numbers == 0)).all()):
            return False
    return True
