"""Run exported models in OpenVINO, on the CPU."""

from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov

from lowbit.export.runtime import CODES, ComputedLayer

NAME = "openvino"

_PRODUCTS = frozenset({"Convolution", "GroupConvolution", "FullyConnected", "MatMul"})
_INTEGER = ("i8", "u8")


def version() -> str:
    """Return OpenVINO's version, without its build number."""
    return ov.get_version().split("-")[0]


def load(model: bytes | Path, *, threads: int) -> "OpenVinoSession":
    """Load an ONNX model; what it leaves in floating point is computed in float32."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    source = model if isinstance(model, bytes) else str(model)
    core = _core()
    return OpenVinoSession(core.compile_model(core.read_model(source), "CPU", settings))


@cache
def _core() -> ov.Core:
    """Return the one core of this process, which lives as long as the process.

    The first use of each core's CPU device gives the thread another stack for signal handlers. Once two
    cores have been dropped, that stack may be memory that is no longer mapped, and the next signal,
    such as the SIGTERM on which a training saves its state, ends the process.
    """
    return ov.Core()


class OpenVinoSession:
    """A compiled model."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images (N, C, H, W) of float32."""
        found = self._request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
        return [np.array(found[port]) for port in self._compiled.outputs]

    def layers(self) -> list[ComputedLayer]:
        """Return the products of the compiled graph.

        A product reads integers if its primitive is of an integer type.
        """
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = _facts(node)
            if facts["layerType"] in _PRODUCTS:
                weight = node.input_value(
                    1
                ).get_node()  # keeps the layer's name where the node lost it
                names = f"{facts['originalLayersNames']},{_facts(weight)['originalLayersNames']}"
                names = tuple(_layer(name) for name in names.split(","))
                integer = facts["runtimePrecision"] in _INTEGER
                found.append(ComputedLayer(names, integer, facts["primitiveType"]))
        return found


def _layer(name: str) -> str:
    """Return the layer's name in that of a node or of a weight's codes.

    A node whose output is the model's has the output's name here, and only its codes name the layer.
    """
    return name.partition("/")[0].removesuffix(CODES)


def _facts(node: ov.Node) -> dict[str, str]:
    return {key: str(value.value) for key, value in node.get_rt_info().items()}
