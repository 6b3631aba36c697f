"""Find what a network's additions and convolutions read, and the modules that made it."""

import operator

import torch
from torch import fx, nn

from lowbit.quant.layers import Converted

ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
# Modules that pass codes on: what they return is on the grid of what they get.
_PASSING = (nn.Identity, nn.Dropout, nn.MaxPool2d)
# One step each, though timm's have children.
_STEPS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class DataflowError(ValueError):
    """Raised when the maker of a tensor cannot be named; the message is why."""


class StepTracer(fx.Tracer):
    """Trace a network into the calls of its modules without children, and of norms and quantized modules."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        alone = not list(module.children()) or isinstance(module, (*_STEPS, Converted))
        return alone or super().is_leaf_module(module, name)


def outputs_read(model: nn.Module, *, by_convolutions: bool) -> list[str]:
    """Return the names of the modules whose outputs residual additions read, in order of computation.

    They are branch ends and shortcuts: normalizations and activations and, where a sum is read as it is,
    the block that returns it.

    Args:
        model: any network that `torch.fx` traces.
        by_convolutions: also what convolutions read, the image left out.

    Raises:
        DataflowError: the forward pass cannot be traced, or no such module returns what is read.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.act, self.conv, self.norm = nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        ...     def forward(self, x):
        ...         x = self.act(x)
        ...         return self.norm(self.conv(x)) + x
        >>> outputs_read(Block(), by_convolutions=False)
        ['act', 'norm']
    """
    try:
        graph = StepTracer().trace(model)
    except Exception as error:  # whatever the network's code does with what is no tensor
        raise DataflowError(
            f"its forward pass cannot be traced ({type(error).__name__}: {error})"
        ) from error
    modules = dict(model.named_modules())
    read = [operand for node in graph.nodes if is_addition(node) for operand in node.args]
    if by_convolutions:
        read += [
            node.args[0]
            for node in graph.nodes
            if node.op == "call_module" and isinstance(modules[node.target], nn.Conv2d)
        ]
    found = {_maker(node, modules) for node in read if node.op != "placeholder"}
    order = {node.target: place for place, node in enumerate(graph.nodes)}
    return sorted(found, key=lambda name: order.get(name, len(order)))


def is_addition(node: fx.Node) -> bool:
    """Whether a node adds two tensors that the network computes."""
    called = node.op in ("call_function", "call_method") and node.target in ADDITIONS
    return called and sum(isinstance(operand, fx.Node) for operand in node.args) == 2


def _maker(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Return the name of the module that made a tensor, looking through those that pass it on."""
    while node.op == "call_module" and isinstance(modules[node.target], _PASSING):
        node = node.args[0]
    if node.op == "call_module":
        module = modules[node.target]
        if isinstance(module, nn.Conv2d | nn.Linear):
            raise DataflowError(f"nothing follows {node.target} before its output is added or read")
        return node.target
    inside = list(node.meta.get("nn_module_stack", ()))
    if is_addition(node) and inside and inside[-1] and _leaves(node, inside[-1]):
        return inside[-1]
    raise DataflowError(f"no module returns its tensor {node.name}")


def _leaves(node: fx.Node, name: str) -> bool:
    """Whether all that reads a tensor stands outside the module that computed it."""
    return all(name not in user.meta.get("nn_module_stack", ()) for user in node.users)
