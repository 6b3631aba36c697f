"""Rewrite a traced network so that its quantized layers compute on integers.

A network in eval mode at a precision is a graph of module calls. What is rewritten, where it applies:

1. A quantizer of activations becomes `Encode` (float to uint8 codes) and `Decode` (back). Encoding
   commutes with a max-pool, which then runs first, on the floats.
2. A convolution or linear layer whose weight and input have codes becomes a `Product` of codes.
3. A batch normalization behind a product goes into its scale and bias, a ReLU into its end.
4. A residual addition of a product becomes `Add`, which rectifies and encodes in the same pass.
5. A product, or an addition, that is only encoded returns the codes.

Everything else stays as it is, on floats.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lowbit.quant.integer import code_kernels
from lowbit.quant.integer.integer_grid import (
    ActivationGrid,
    NotAnIntegerGridError,
    activation_grid,
    weight_codes,
)
from lowbit.quant.integer.products import Product, UnsupportedLayerError
from lowbit.quant.integer.tracing import NotLoweredError, sweep, trace
from lowbit.quant.layers import ActivationQuantized, Converted, WeightQuantized
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.structure.dataflow import is_addition

_logger = logging.getLogger(__name__)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # in eval mode
_RELU = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}


@dataclass(frozen=True)
class Encode:
    """float32 to uint8 codes."""

    grid: ActivationGrid

    def __call__(self, x: Tensor) -> Tensor:
        return code_kernels.encode(x, self.grid)


@dataclass(frozen=True)
class Decode:
    """uint8 codes to float32."""

    grid: ActivationGrid

    def __call__(self, codes: Tensor) -> Tensor:
        return code_kernels.decode(codes, self.grid)


@dataclass(frozen=True)
class Plain:
    """A module without its quantizers."""

    module: Converted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.base.forward(self.module, *args, **kwargs)


@dataclass(eq=False)
class Add:
    """The sum of a product and something else, in the memory of the product."""

    other: ActivationGrid | None
    rectify: bool = False
    output: ActivationGrid | None = None

    @property
    def facts(self) -> tuple:
        """All that the result depends on, beside the inputs."""
        return type(self), self.other, self.rectify, self.output

    def __call__(self, x: Tensor, other: Tensor) -> Tensor:
        if x.shape != other.shape:  # broadcast
            x = x + (other if self.other is None else code_kernels.decode(other, self.other))
            other, grid = torch.zeros_like(x), None
        else:
            grid = self.other
        return code_kernels.add(x, other, grid, rectify=self.rectify, grid=self.output)


def lower(network: nn.Module) -> fx.Graph:
    """Return the graph of a network in eval mode at its present precision, rewritten.

    The quantizers of what was rewritten are asked once each.

    Raises:
        NotLoweredError: the network cannot be traced or its images depend on one another, or no layer
            computes on integers.
    """
    graph = trace(network)
    rewriter = _Rewriter(graph, network)
    for rewrite in (
        rewriter.drop_nothing,
        rewriter.split_activations,
        rewriter.pool_first,
        rewriter.multiply_codes,
        rewriter.fold_norms,
        rewriter.add_products,
        rewriter.rectify,
        rewriter.return_codes,
    ):
        rewrite()
        sweep(graph)
    if not rewriter.products:
        raise NotLoweredError("no layer computes on integers")
    return graph


class _Rewriter:
    """The rewrites of one graph, in place."""

    def __init__(self, graph: fx.Graph, network: nn.Module) -> None:
        self.graph, self.network = graph, network
        self.products: list[fx.Node] = []

    def drop_nothing(self) -> None:
        """Leave out modules that return what they get."""
        for node in list(self.graph.nodes):
            if type(self._module(node)) in _NOTHING:
                node.replace_all_uses_with(node.args[0])

    def split_activations(self) -> None:
        """Write quantized activation modules as module, codes and values."""
        for node in list(self.graph.nodes):
            module = self._module(node)
            if isinstance(module, ActivationQuantized) and module.a_quant.active:
                grid = self._grid(module.a_quant)
                if grid is not None:
                    plain = self._insert(node, Plain(module), *node.args, **node.kwargs)
                    codes = self._insert(node, Encode(grid), plain)
                    self._replace(node, self._insert(node, Decode(grid), codes))

    def pool_first(self) -> None:
        """Let max-pools of values that only they read run before the encoding."""
        for node in list(self.graph.nodes):
            decoded = self._only_argument(node)
            if type(self._module(node)) is not nn.MaxPool2d or not _is(decoded, Decode):
                continue
            codes = decoded.args[0]
            if len(decoded.users) > 1 or len(codes.users) > 1:
                continue
            grid = codes.target.grid
            reached = list(node.users)
            node.args = codes.args
            with self.graph.inserting_after(node):
                after = self._create(Encode(grid), node)
            with self.graph.inserting_after(after):
                value = self._create(Decode(grid), after)
            for user in reached:
                user.replace_input_with(node, value)

    def multiply_codes(self) -> None:
        """Replace layers whose weights and inputs have codes by products."""
        for node in list(self.graph.nodes):
            layer, x = self._module(node), self._only_argument(node)
            if not isinstance(layer, WeightQuantized) or layer.base not in (nn.Conv2d, nn.Linear):
                continue
            if layer.w_quant is None or not layer.w_quant.active or x is None:
                continue
            read = self._codes_read(layer, x)
            after = layer.a_quant if layer.quantizes_output else None
            output = self._grid(after) if after is not None and after.active else None
            if read is None or (after is not None and after.active and output is None):
                continue
            grid, given = read
            try:
                product = Product(layer, weight_codes(layer), grid)
            except (NotAnIntegerGridError, UnsupportedLayerError) as error:
                _logger.debug("%s computes on floats: %s", node.target, error)
                continue
            layer.quantized_weight()  # it counts as asked
            codes = self._encoded(node, x, grid) if given is None else given
            new = self._insert(node, product, codes)
            self.products.append(new)
            if output is not None:
                new = self._insert(node, Decode(output), self._insert(node, Encode(output), new))
            self._replace(node, new)

    def _codes_read(
        self, layer: WeightQuantized, x: fx.Node
    ) -> tuple[ActivationGrid, fx.Node | None] | None:
        """Return the grid of a layer's input, and its codes if the graph has them already."""
        own = None if layer.quantizes_output else layer.a_quant
        if own is not None and own.active:
            grid = self._grid(own)
            return None if grid is None else (grid, None)
        return (x.target.grid, x.args[0]) if _is(x, Decode) else None

    def _encoded(self, before: fx.Node, x: fx.Node, grid: ActivationGrid) -> fx.Node:
        """Return the codes of `x`, which several layers may read."""
        for user in x.users:
            if _is(user, Encode) and user.target.grid == grid:
                return user
        return self._insert(before, Encode(grid), x)

    def fold_norms(self) -> None:
        """Fold batch normalizations into the convolutions that they alone read."""
        for node in self.products:
            norm = _only_user(node)
            if node.target.place is not None and self._is_plain(norm, nn.BatchNorm2d):
                module = self._plain_module(norm)
                if module.track_running_stats and not module.training:
                    node.target.fold(module)
                    self._replace(norm, node)

    def add_products(self) -> None:
        """Let residual additions use the memory of a product that they alone read."""
        for node in list(self.graph.nodes):
            if not is_addition(node) or node.kwargs:
                continue
            last = [n for n in node.args if _is(n, Product) and len(n.users) == 1]
            if len(set(node.args)) < 2 or not last:
                continue
            main = last[-1]
            (other,) = (n for n in node.args if n is not main)
            grid = other.target.grid if _is(other, Decode) else None
            read = other if grid is None else other.args[0]
            self._replace(node, self._insert(node, Add(grid), main, read))

    def rectify(self) -> None:
        """Let products and additions that a ReLU alone reads rectify."""
        for node in list(self.graph.nodes):
            after = _only_user(node)
            if _is(node, Product | Add) and after is not None and self._is_relu(after):
                node.target.rectify = True
                self._replace(after, node)

    def return_codes(self) -> None:
        """Let products and additions that are only encoded return the codes."""
        for node in list(self.graph.nodes):
            after = _only_user(node)
            if _is(node, Product | Add) and _is(after, Encode):
                node.target.output = after.target.grid
                self._replace(after, node)

    def _grid(self, quantizer: Quantizer) -> ActivationGrid | None:
        try:
            grid = activation_grid(quantizer)
        except NotAnIntegerGridError as error:
            _logger.debug("a quantizer of activations has no codes: %s", error)
            return None
        quantizer(torch.zeros(1, 1))  # it counts as asked
        return grid

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.network.get_submodule(node.target) if node.op == "call_module" else None

    def _plain_module(self, node: fx.Node) -> nn.Module | None:
        return node.target.module if _is(node, Plain) else self._module(node)

    def _is_plain(self, node: fx.Node | None, kind: type[nn.Module]) -> bool:
        """Whether a node calls a module of exactly this class, quantized or not."""
        if _is(node, Plain):
            return node.target.module.base is kind
        return node is not None and type(self._module(node)) is kind

    def _is_relu(self, node: fx.Node) -> bool:
        return self._is_plain(node, nn.ReLU) or (
            node.op in ("call_function", "call_method") and node.target in _RELU
        )

    @staticmethod
    def _only_argument(node: fx.Node) -> fx.Node | None:
        given = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        return given if isinstance(given, fx.Node) else None

    def _create(self, operation: Callable, *args: Any, **kwargs: Any) -> fx.Node:
        name = type(operation).__name__.lower()
        return self.graph.create_node("call_function", operation, args, kwargs, name)

    def _insert(self, before: fx.Node, operation: Callable, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(before):
            return self._create(operation, *args, **kwargs)

    def _replace(self, node: fx.Node, new: fx.Node) -> None:
        node.replace_all_uses_with(new)


def _is(node: fx.Node | None, kind: type) -> bool:
    """Whether a node is an operation of this class."""
    return node is not None and node.op == "call_function" and isinstance(node.target, kind)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
