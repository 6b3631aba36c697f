"""Trace a quantized network into an ONNX graph of integers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from lowbit.export.integer_graph import PACKED_BITS, Grids, put_integers, read_grids
from lowbit.export.marks import marked, marked_names
from lowbit.quant.integer.integer_grid import NotAnIntegerGridError, WeightCodes
from lowbit.quant.layers import Quantized, Switchable

OPSET = 21  # the first with four-bit integers
INPUT = "images"

_TALKERS = ("torch.onnx", "onnx_ir", "onnxscript")  # loggers of the exporter


class ExportError(ValueError):
    """Raised when a network was not exported; the message gives the reason and a remedy."""


@dataclass(frozen=True)
class Exported:
    """An ONNX model and what it holds.

    Attributes:
        model: the serialized model.
        packed: the same, weights of at most four bits in four (INT4), which halves the file.
        layers: names of the layers with integer weights, in the order of computation, repeated if called so.
        outputs: names of its outputs.
    """

    model: bytes
    packed: bytes
    layers: list[str]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """A network's graph with marks for what its quantizers do, which takes long to make.

    Attributes:
        model: the graph.
        on: names of the quantizers and of the layers with quantized weights that were on.
        called: those of them that the network computes with, in order.
        outputs: names of its outputs.
    """

    model: onnx.ModelProto
    on: frozenset[str]
    called: tuple[str, ...]
    outputs: tuple[str, ...]

    def fits(self, network: nn.Module) -> bool:
        """Whether it is the graph at a network's precision too: the same is on, and nothing else changes."""
        others = (m for m in network.modules() if isinstance(m, Switchable))
        return self.on == marked_names(network) and all(isinstance(m, Quantized) for m in others)

    def export(self, network: nn.Module) -> Exported:
        """Return the model of the traced network, or of one that differs from it in its quantizers alone.

        Args:
            network: with the same quantizers on; left as it was.

        Raises:
            ExportError: a layer cannot be exported; the message names it.
            ValueError: other quantizers are on.
        """
        if marked_names(network) != self.on:
            raise ValueError(
                "other quantizers are on than when the network was traced; nothing was exported. Trace "
                "it again."
            )
        with _in_eval(network), _errors(), _quiet():
            grids = read_grids(network, self.called)
            model, layers = self._written(grids, pack=False)
            packed = self._written(grids, pack=True)[0] if _packs(grids) else model
        return Exported(model, packed, layers, self.outputs)

    def _written(self, grids: Grids, *, pack: bool) -> tuple[bytes, list[str]]:
        graph = ir.from_proto(self.model)
        layers = put_integers(graph, grids, pack=pack)
        return ir.to_proto(graph).SerializeToString(), layers


def export_network(
    network: nn.Module,
    example: Tensor,
    *,
    outputs: Sequence[str] = ("logits",),
    size_multiple: int | None = None,
) -> Exported:
    """Return the ONNX model of a network at its current precision.

    The graph computes what the network simulates: its codes, its scales, in eval mode. At full
    precision it is the network itself. The arguments and errors are those of `trace_network`.
    """
    trace = trace_network(network, example, outputs=outputs, size_multiple=size_multiple)
    return trace.export(network)


def trace_network(
    network: nn.Module,
    example: Tensor,
    *,
    outputs: Sequence[str] = ("logits",),
    size_multiple: int | None = None,
) -> Trace:
    """Return a network's graph, to be exported at every precision with the same quantizers on.

    Args:
        network: calibrated, if it is quantized; left as it was.
        example: images (N, C, H, W), N at least 2; any number of images may be given to the model.
        outputs: names of the tensors that the network returns, in its order.
        size_multiple: height and width of the model's images may be any multiples of this, as those of
            the example are (twice it at least); None: they are the example's.

    Raises:
        ExportError: a layer cannot be exported; the message names it.
        ImportError: onnx or onnxscript is missing.
    """
    require_exporter()
    with _in_eval(network), _errors(), _quiet(), torch.no_grad():
        with marked(network) as called:
            network(example)
        read_grids(network, called)  # refuses within a pass, which is much shorter than a trace
        with marked(network):
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=(_free_dimensions(size_multiple),),
                verbose=False,
            )
    on = marked_names(network)
    return Trace(program.model_proto, on, tuple(called), tuple(outputs))


def _packs(grids: Grids) -> bool:
    weights = (grid for grid in grids.values() if isinstance(grid, WeightCodes))
    return any(codes.bits <= PACKED_BITS for codes in weights)


@contextlib.contextmanager
def _in_eval(network: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Say what was not done, and what to do, when an export fails."""
    try:
        yield
    except NotAnIntegerGridError as error:
        raise ExportError(
            f"the network was not exported: {error}\nNothing was written. Keep these layers in full "
            "precision by a rule of the policy, or take a policy whose grids are integers: lsq, ssql."
        ) from error
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"torch cannot export this network ({_last_line(error)}); nothing was written. "
            "docs/deploy.md lists the networks that are known to work."
        ) from error


def _free_dimensions(size_multiple: int | None) -> dict[int, Any]:
    """Return the dimensions of the images (N, C, H, W) that a model leaves open."""
    free: dict[int, Any] = {0: torch.export.Dim("N")}
    if size_multiple is not None:
        free |= {2: size_multiple * torch.export.Dim("h"), 3: size_multiple * torch.export.Dim("w")}
    return free


def require_exporter() -> None:
    """Refuse where torch's exporter lacks what it needs.

    Raises:
        ImportError: with the command that installs it.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{' and '.join(missing)} are needed to export; nothing was written. Install them: "
            'pip install "lowbit-bench[deploy]".'
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress from the terminal; what it says of a failure is in its error."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _TALKERS)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _last_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
