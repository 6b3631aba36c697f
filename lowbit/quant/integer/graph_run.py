"""Run a rewritten graph node by node, a few images at a time, with what graphs share computed once."""

import math
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from lowbit.quant.layers import Quantized, Switchable
from lowbit.quant.quantizers.base import Quantizer

_PIXELS = 8 * 224 * 224  # of images that run at once, so that what layers exchange stays in caches

Known = dict[tuple[int, int], Any]
"""Results for a batch by the number of their operation and that of their part of the batch."""


_NO_VIEW = "view size is not compatible"  # torch's message where `Tensor.view` needs another layout


class _LayoutError(RuntimeError):
    """Raised when a node's code does not take the layout in which products return images."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__(f"{node} needs contiguous tensors")
        self.node = node


class GraphRun:
    """A graph from one batch of images to one tensor.

    Args:
        network: whose modules the graph calls.
        graph: of a network in eval mode at one precision.
        numbers: of operations, common to the graphs of all precisions: two nodes have one number if they
            compute the same of the same input.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, numbers: dict[tuple, int]) -> None:
        self._network = network
        self._nodes = list(graph.nodes)
        self._numbers: dict[fx.Node, int] = {}
        self._orders: dict[frozenset[fx.Node], list[tuple[fx.Node, list[fx.Node]]]] = {}
        self._contiguous: set[fx.Node] = set()  # whose code does not take images in channels_last
        for node in self._nodes:
            arguments = fx.node.map_arg((node.args, node.kwargs), self._name)
            key = node.op, self._target(node), str(arguments)
            self._numbers[node] = numbers.setdefault(key, len(numbers))

    @property
    def numbers(self) -> set[int]:
        """Numbers of this graph's operations."""
        return set(self._numbers.values())

    def __call__(self, x: Tensor, shared: set[int], known: Known) -> Tensor:
        """Return the graph's output for a batch.

        Args:
            x: (B, ...).
            shared: numbers of operations that other graphs have too.
            known: results of `shared` for this batch; those that were missing are added.
        """
        edge = self._edge(shared)
        parts = x.split(max(1, _PIXELS // max(1, math.prod(x.shape[2:]))))
        return torch.cat([self._part(part, edge, known, n) for n, part in enumerate(parts)])

    def _part(self, x: Tensor, edge: set[fx.Node], known: Known, part: int) -> Tensor:
        while True:  # each time one node more gets the layout that its code needs
            try:
                return self._run(x, edge, known, part)
            except _LayoutError as error:
                self._contiguous.add(error.node)

    def _run(self, x: Tensor, edge: set[fx.Node], known: Known, part: int) -> Tensor:
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        found = {node for node in edge if (self._numbers[node], part) in known}
        values: dict[fx.Node, Any] = {
            node: _copied(known[self._numbers[node], part])
            for node in found  # may be written over
        }
        for node, last_read in self._order(frozenset(found)):
            if node.op == "output":
                return values[node.args[0]]
            values[node] = x if node.op == "placeholder" else self._compute(node, values)
            if node in edge:
                known[self._numbers[node], part] = _copied(values[node])
            for other in last_read:
                del values[other]
        raise AssertionError("a graph ends with its output")

    def _compute(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node in self._contiguous:
            args, kwargs = tree_map_only(Tensor, Tensor.contiguous, (args, kwargs))
        try:
            return self._call(node, args, kwargs)
        except RuntimeError as error:
            if _NO_VIEW not in str(error) or node in self._contiguous:
                raise
            raise _LayoutError(node) from error

    def _call(self, node: fx.Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        if node.op == "call_function":
            return node.target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        if node.op == "call_module":
            return self._network.get_submodule(node.target)(*args, **kwargs)
        return attrgetter(node.target)(self._network)

    def _order(self, known: frozenset[fx.Node]) -> list[tuple[fx.Node, list[fx.Node]]]:
        """Return the nodes to compute, and after each the values that nothing reads any more."""
        if known not in self._orders:
            needed, waiting = set(), [self._nodes[-1]]
            while waiting:
                node = waiting.pop()
                if node not in needed and node not in known:
                    needed.add(node)
                    waiting += node.all_input_nodes
            order, read = [], set()
            for node in reversed(self._nodes):
                if node in needed:
                    last = [n for n in node.all_input_nodes if n not in read]
                    read.update(last)
                    order.append((node, last))
            self._orders[known] = order[::-1]
        return self._orders[known]

    def _edge(self, shared: set[int]) -> set[fx.Node]:
        """Return the shared nodes that others read."""
        return {
            node
            for node, number in self._numbers.items()
            if number in shared
            and node.op not in ("placeholder", "output")
            and any(self._numbers[user] not in shared for user in node.users)
        }

    def _name(self, node: fx.Node) -> str:
        return f"%{self._numbers[node]}"

    def _target(self, node: fx.Node) -> Any:
        # An operation may hold a module, or attributes that were rewritten.
        module, facts = (getattr(node.target, name, None) for name in ("module", "facts"))
        if node.op == "call_module":
            module = self._network.get_submodule(node.target)
        if not isinstance(module, nn.Module):
            return node.target if facts is None else facts
        inside = list(module.modules())
        if any(isinstance(m, Switchable) and not isinstance(m, Quantized) for m in inside):
            return node.target, self  # follows the precision in a way of its own
        return node.target, *(m.bits for m in inside if isinstance(m, Quantizer))


def _copied(value: Any) -> Any:
    return tree_map_only(Tensor, Tensor.clone, value)


def in_several(graphs: Sequence[GraphRun]) -> set[int]:
    """Return the numbers of operations that more than one graph has."""
    counts = Counter(number for graph in graphs for number in graph.numbers)
    return {number for number, count in counts.items() if count > 1}
