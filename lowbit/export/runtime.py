"""What runs exported models, and the facts about it that a measurement depends on."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lowbit.common.suggest import did_you_mean

CODES = ".codes"
"""What follows a layer's name in that of its weight's codes."""


class RuntimeMissingError(ImportError):
    """Raised when a runtime is not installed; the message has the command that installs it."""


@dataclass(frozen=True)
class ComputedLayer:
    """A convolution or matrix product as a runtime computes it.

    Attributes:
        names: of the graph's nodes that it computes; an exported layer's node has the layer's name.
        integer: whether both of its operands are integers there.
        kernel: the runtime's word for what computes it; "" if it has none.
    """

    names: tuple[str, ...]
    integer: bool
    kernel: str


class Session(Protocol):
    """A model loaded into a runtime."""

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for images (N, C, H, W) of float32."""

    def layers(self) -> list[ComputedLayer]:
        """Return the convolutions and matrix products of the graph that the runtime really runs."""


class Runtime(Protocol):
    """The interface of a runtime's module."""

    NAME: str

    def version(self) -> str:
        """Return the installed version."""

    def load(self, model: bytes | Path, *, threads: int) -> Session:
        """Load an ONNX model for a number of threads; 0: all cores."""


RUNTIMES: dict[str, tuple[str, str]] = {
    "openvino": ("lowbit.export.openvino_runtime", "openvino"),
    "onnxruntime": ("lowbit.export.onnxruntime_runtime", "onnxruntime"),
}
"""Runtimes by name, the default first: their module here, and the package that it needs."""


def get_runtime(name: str) -> Runtime:
    """Return a runtime by name.

    Raises:
        ValueError: there is none of this name.
        RuntimeMissingError: its package is not installed.
    """
    if name not in RUNTIMES:
        raise ValueError(
            f"there is no runtime {name!r}; nothing was run.{did_you_mean(name, RUNTIMES)} Known: "
            f"{', '.join(RUNTIMES)}."
        )
    module, package = RUNTIMES[name]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise RuntimeMissingError(
            f"{package} is not installed ({error}); nothing was run. Install it: "
            'pip install "lowbit-bench[deploy]".'
        ) from error
    return importlib.import_module(module)


def batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield images in batches of equal size, the last one smaller."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def run_in_batches(session: Session, images: np.ndarray, size: int = 64) -> list[np.ndarray]:
    """Return the outputs for all images, computed in batches."""
    parts = [session.run(batch) for batch in batches(images, size)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def on_integers(session: Session, layers: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return which of the layers a runtime computes on integers, and which in floating point.

    A layer that the runtime's graph does not name is counted as floating point.
    """
    wanted = list(dict.fromkeys(layers))
    found = {
        name.split("#")[0] for layer in session.layers() if layer.integer for name in layer.names
    }
    return [name for name in wanted if name in found], [n for n in wanted if n not in found]
