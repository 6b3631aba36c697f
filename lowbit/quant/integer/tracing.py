"""Trace a network in eval mode into a graph that may be rewritten and run a few images at a time."""

import inspect
import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from lowbit.quant.integer.integer_grid import reads_batches
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.structure.dataflow import StepTracer

# Functions and methods whose result may lie in the memory of their first argument.
_VIEWS = {
    "view", "view_as", "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze",
    "transpose", "permute", "t", "T", "mT", "swapaxes", "swapdims", "movedim", "moveaxis",
    "getitem", "getattr", "narrow", "select", "chunk", "split", "tensor_split", "unbind",
    "expand", "expand_as", "broadcast_to", "unfold", "diagonal", "as_strided", "alias",
    "contiguous", "detach", "to", "type", "type_as", "float", "dropout",
}  # fmt: skip
_VIEWING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)


class NotLoweredError(ValueError):
    """Raised where a network cannot be rewritten as a whole; the message is why."""


class _Proxy(fx.Proxy):
    """Tells `x += y`, which writes over x, from `x = x + y`."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._write(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._write(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._write(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._write(operator.itruediv, other)

    def _write(self, operation: Callable, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})


class _Tracer(StepTracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the network's code made of no input."""

    value: Tensor

    def __call__(self) -> Tensor:
        return self.value


def trace(network: nn.Module) -> fx.Graph:
    """Return the graph of a network of one tensor, its other arguments left at their defaults.

    Raises:
        NotLoweredError: it cannot be traced, the graph would leave out what is written into a tensor, an
            image's result depends on the others of its batch, or a parameter is no number.
    """
    _require_numbers(network)
    _require_single_images(network)
    _, *others = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    # Some modules keep what they compute, and the tracer its constants: in a copy, of the same weights.
    tensors = {id(t): t for t in (*network.parameters(), *network.buffers())}
    try:
        copied = deepcopy(network, tensors)
        graph = _Tracer().trace(copied, concrete_args=defaults)
    except Exception as error:  # whatever the network's code does with what is no tensor
        raise NotLoweredError(f"{type(error).__name__}: {error}") from error
    _hold_constants(graph, copied, network)
    _check_writes(graph, network)
    sweep(graph)  # with the tracer's own checks that the defaults were given
    for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        if node.users:
            raise NotLoweredError(f"its argument {node} is no constant")
        graph.erase_node(node)
    if not isinstance(next(iter(reversed(graph.nodes))).args[0], fx.Node):
        raise NotLoweredError("it returns more than one tensor")
    return graph


def sweep(graph: fx.Graph) -> None:
    """Remove what nothing reads."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _hold_constants(graph: fx.Graph, traced: nn.Module, network: nn.Module) -> None:
    """Let the graph itself hold the tensors that the tracer left in the copy."""
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        read = operator.attrgetter(node.target)
        try:
            read(network)
        except AttributeError:
            with graph.inserting_before(node):
                held = graph.create_node("call_function", Constant(read(traced)), name=node.name)
            node.replace_all_uses_with(held)
            graph.erase_node(node)


def _require_numbers(network: nn.Module) -> None:
    """Refuse NaN and infinity, which codes do not hold: a network that diverged would seem sound."""
    for name, tensor in _tensors(network):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotLoweredError(f"{name} has NaN or infinite values")


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers, but not those of quantizers, which may await calibration."""
    for name, module in network.named_modules():
        if not isinstance(module, Quantizer):
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            yield from ((f"{name}.{key}", tensor) for key, tensor in own)


def _require_single_images(network: nn.Module) -> None:
    """Refuse statistics and ranges of a whole batch, which runs in parts."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise NotLoweredError(f"{name} normalizes by the statistics of each batch")
        quantizes = isinstance(module, Quantizer) and module.active
        if quantizes and module.role == "activation" and reads_batches(module):
            raise NotLoweredError(f"{name} takes its range from each batch")


def _check_writes(graph: fx.Graph, network: nn.Module) -> None:
    """Refuse a network that reads a tensor, by whatever view, after it was written over."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        written = node.args[0] if _writes(node, network) else None
        shared = [written] if isinstance(written, fx.Node) else []
        while shared and (owner := _owner(shared[-1], network)) is not None:
            shared.append(owner)
        for other in shared:  # grows by their views
            for user in other.users:
                if order[user] > order[node]:
                    raise NotLoweredError(f"{node} writes over a tensor that is read elsewhere")
                if user is not node and user not in shared and _owner(user, network) is other:
                    shared.append(user)


def _owner(node: fx.Node, network: nn.Module) -> fx.Node | None:
    """Return the node in whose memory a node's result may lie."""
    first = node.args[0] if node.args else None
    shares = isinstance(first, fx.Node) and (_views(node, network) or _writes(node, network))
    return first if shares else None


def _writes(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return any(
            getattr(m, "inplace", False) for m in network.get_submodule(node.target).modules()
        )
    if node.op == "call_method":
        return node.target.endswith("_")
    name = getattr(node.target, "__name__", "")
    in_place = name.endswith("_") or name in ("iadd", "imul", "isub", "itruediv", "setitem")
    return node.op == "call_function" and (in_place or bool(node.kwargs.get("inplace")))


def _views(node: fx.Node, network: nn.Module) -> bool:
    """Whether a node's result may lie in the memory of what it reads."""
    if node.op == "call_module":
        module = network.get_submodule(node.target)
        own = not type(module).__module__.startswith("torch.")
        return isinstance(module, _VIEWING) or (own and not any(True for _ in module.parameters()))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return node.op in ("call_method", "call_function") and name in _VIEWS
