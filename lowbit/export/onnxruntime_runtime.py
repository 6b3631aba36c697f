"""Run exported models in ONNX Runtime, on the CPU."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from lowbit.export.runtime import ComputedLayer

NAME = "onnxruntime"

_FLOAT = frozenset(
    {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "FusedGemm", "MatMulNBits"}
)
_INTEGER = frozenset(
    {
        "QLinearConv",
        "ConvInteger",
        "QGemm",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
    }
)
_ERRORS_ONLY = 3


def version() -> str:
    """Return ONNX Runtime's version."""
    return ort.__version__


def load(model: bytes | Path, *, threads: int) -> "OnnxRuntimeSession":
    """Load an ONNX model."""
    return OnnxRuntimeSession(
        model if isinstance(model, bytes) else Path(model).read_bytes(), threads
    )


class OnnxRuntimeSession:
    """An inference session, and the graph after its optimizations."""

    def __init__(self, model: bytes, threads: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            self._session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
            nodes = onnx.load(path).graph.node
        self._layers = [
            ComputedLayer((_layer(node.name),), node.op_type in _INTEGER, node.op_type)
            for node in nodes
            if node.op_type in _INTEGER | _FLOAT
        ]
        self._input = self._session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images (N, C, H, W) of float32."""
        return self._session.run(None, {self._input: images})

    def layers(self) -> list[ComputedLayer]:
        """Return the products of the optimized graph."""
        return self._layers


def _layer(name: str) -> str:
    """Return the layer's name in that of an optimized node."""
    for suffix in ("_nchwc", "_quant", "_token"):
        name = name.split(suffix)[0]
    return name
