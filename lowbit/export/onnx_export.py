"""Trace a quantized network into an ONNX graph of integers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from lowbit.export.integer_graph import PACKED_BITS, put_integers
from lowbit.export.marks import marked
from lowbit.quant.convert import quantized_layers
from lowbit.quant.integer.integer_grid import NotAnIntegerGridError

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


def export_network(
    network: nn.Module,
    example: Tensor,
    *,
    outputs: Sequence[str] = ("logits",),
    size_multiple: int | None = None,
) -> Exported:
    """Return the ONNX model of a network at its current precision.

    The graph computes what the network simulates: its codes, its scales, in eval mode. At full
    precision it is the network itself.

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
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with _quiet():
            with marked(network), torch.no_grad():
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
            packed = None
            if _packs(network):
                marks = ir.from_proto(program.model_proto)
                put_integers(marks, network, pack=True)
                packed = ir.to_proto(marks).SerializeToString()
            layers = put_integers(program.model, network)
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
    finally:
        for module, mode in training.items():
            module.training = mode
    model = program.model_proto.SerializeToString()
    return Exported(model, packed or model, layers, tuple(outputs))


def _packs(network: nn.Module) -> bool:
    weights = (layer.w_quant for layer in quantized_layers(network).values())
    return any(w.active and w.bits <= PACKED_BITS for w in weights)


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
