"""Forward passes of one frozen network at several precisions, on integers where that is exact."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from lowbit.quant.asked import require_asked
from lowbit.quant.convert import set_precision
from lowbit.quant.integer import code_kernels
from lowbit.quant.integer.graph_run import GraphRun, Known, in_several
from lowbit.quant.integer.lowering import lower
from lowbit.quant.integer.products import is_exact
from lowbit.quant.integer.tracing import NotLoweredError
from lowbit.quant.layers import is_quantizing, reuse_weights
from lowbit.quant.precision import Precision
from lowbit.quant.quantizers.base import Quantizer

_logger = logging.getLogger(__name__)

ARITHMETIC = "integers, 2"
"""Name of this arithmetic where results are kept; the number is raised when it rounds differently."""


def computes_on_integers(network: nn.Module) -> bool:
    """Whether a network's low-bit layers may be computed on integers here.

    They are on a CPU whose products of codes are exact, in float32 (not within `in_float64`), and unless
    `use_fused_kernels(False)` or LOWBIT_FUSED=0 turned the kernels off.
    """
    tensors = [*network.parameters(), *network.buffers()]
    plain = all(
        t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point())
        for t in tensors
    )
    return plain and code_kernels.is_available() and is_exact()


class FrozenForward:
    """Run a quantized, calibrated network in eval mode at several precisions.

    At full precision, and where a network or machine does not allow it, the network runs as it is. Else it
    runs as a graph whose layers multiply codes (`lowbit.quant.integer.lowering`): the integers of the
    simulated quantization, whose sums are exact, so that results differ by rounding. Weights are turned
    into codes once, at the first pass.

    Args:
        network: its weights, statistics and ranges must not change afterwards.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._graphs: dict[Precision, GraphRun | None] = {}
        self._asked: set[Precision] = set()
        self._operations: dict[tuple, int] = {}

    @contextmanager
    def at(self, precisions: Sequence[Precision]) -> Iterator[Callable[[Tensor], list[Tensor]]]:
        """Give a function that maps a batch to the network's outputs at these precisions.

        Precisions share what lies before the first layer in which they differ. The network is left at
        the last precision.

        Raises:
            ValueError: at the end, a quantizer that is on was never asked.
        """
        network = self.network
        assert not network.training, "a frozen network is in eval mode"
        unasked = [precision for precision in precisions if precision not in self._asked]
        with ExitStack() as stack:
            for precision in unasked:
                self._graphs.pop(precision, None)  # its quantizers are asked when it is made
                set_precision(network, precision)
                stack.enter_context(require_asked(network))
            graphs = self._lowered(precisions)
            # Memory holds the quantized weights of one precision, while it runs; a GPU has room for all.
            in_turn = len(precisions) > 1 and _is_on_cpu(network)
            if not in_turn:
                stack.enter_context(reuse_weights(network))
            reusing = partial(reuse_weights, network) if in_turn else nullcontext
            shared = in_several([graph for graph in graphs if graph is not None])

            @torch.no_grad()
            def run(x: Tensor) -> list[Tensor]:
                known: Known = {}
                codable = _is_codable(x)
                found = []
                for precision, graph in zip(precisions, graphs, strict=True):
                    set_precision(network, precision)
                    forward = None
                    if graph is not None and codable:
                        forward = partial(graph, shared=shared, known=known)
                    with reusing(), _instead_of_forward(network, forward):
                        found.append(network(x))
                return found

            yield run
        self._asked.update(unasked)

    @torch.no_grad()
    def _lowered(self, precisions: Sequence[Precision]) -> list[GraphRun | None]:
        if _is_hooked(self.network) or not computes_on_integers(self.network):
            return [None] * len(precisions)
        for precision in precisions:
            if precision not in self._graphs:
                set_precision(self.network, precision)
                self._graphs[precision] = self._lower(precision)
        return [self._graphs[precision] for precision in precisions]

    def _lower(self, precision: Precision) -> GraphRun | None:
        if not is_quantizing(self.network):
            return None
        try:
            graph = lower(self.network)
        except NotLoweredError as error:
            _logger.info("%s is computed on floats: %s", precision, error)
            return None
        return GraphRun(self.network, graph, self._operations)


def _is_on_cpu(network: nn.Module) -> bool:
    return all(parameter.is_cpu for parameter in network.parameters())


def _is_codable(x: Tensor) -> bool:
    """Whether codes can stand for a batch: it has images, of float32 and without NaN.

    Within autocast the network computes in another type, as it is.
    """
    plain = x.dtype == torch.float32 and x.numel() > 0 and not torch.is_autocast_enabled("cpu")
    return plain and not bool(x.isnan().any())


def _is_hooked(network: nn.Module) -> bool:
    """Whether something below a network waits for calls of a module, which a graph may leave out."""
    for module in network.modules():
        hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks
        if module is not network and any(hooks):
            return True
        # `require_asked` stands in for the `forward` of quantizers.
        if "forward" in module.__dict__ and not isinstance(module, Quantizer):
            return True
    return False


@contextmanager
def _instead_of_forward(
    network: nn.Module, run: Callable[[Tensor], Tensor] | None
) -> Iterator[None]:
    """Let a network's hooks run around `run`, or around its own forward if that is None."""
    if run is None:
        yield
        return
    network.__dict__["forward"] = run
    try:
        yield
    finally:
        del network.__dict__["forward"]
