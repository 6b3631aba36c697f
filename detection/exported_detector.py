"""Run a detector with its backbone and pyramid as an integer graph, and its heads in floating point."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.quantize import normalized
from lowbit.detection.engine_contract import Engine
from lowbit.detection.evaluation.measurements import measure
from lowbit.detection.recipe import Recipe
from lowbit.export.latency import Latency, time_in_turns
from lowbit.export.onnx_export import Exported, export_network
from lowbit.export.runtime import Runtime, on_integers
from lowbit.quant import FP, Precision, set_precision
from lowbit.quant.float64 import in_float64

SIZE_MULTIPLE = 32
"""Pixels: what both engines pad images to a multiple of."""

_EXAMPLE = (2, 3, 256, 384)  # at least two places of the coarsest level, whose stride is 128

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class ExportedScore:
    """What a detector's exported graph is worth, and what it costs.

    Attributes:
        simulated, floor, exported: measurements by metric: of the simulation; of the simulation with the
            graph's part in float64, whose distance is what rounding alone does; of the exported graph.
        integers, floats: names of the graph's quantized layers on integers in the runtime, and the others.
        file_bytes: of the model.
        latency: of the graph over the same one in full precision, in the same runtime.
    """

    simulated: dict[str, dict[str, Any]]
    floor: dict[str, dict[str, Any]]
    exported: dict[str, dict[str, Any]]
    integers: list[str]
    floats: list[str]
    file_bytes: int
    latency: Latency


def export_pyramid(detector: nn.Module) -> Exported:
    """Return the graph of a detector's backbone and pyramid at its current precision.

    Its images (N, 3, H, W) are normalized as in the detector, H and W multiples of 32; its outputs are the
    levels from fine to coarse, named by their strides: p3 has stride 8.

    Args:
        detector: of either engine, on the CPU, calibrated if it is quantized.

    Raises:
        ExportError: a layer cannot be exported; the message names it.
        ImportError: onnx or onnxscript is missing.
    """
    example = torch.zeros(_EXAMPLE)
    outputs = [f"p{_log_stride(level)}" for level in _levels(detector, example).values()]
    return export_network(
        _Levels(detector.backbone), example, outputs=outputs, size_multiple=SIZE_MULTIPLE
    )


def score_exported(
    engine: Engine,
    detector: nn.Module,
    recipe: Recipe,
    images: DetectionSet,
    runtime: Runtime,
    *,
    precision: Precision,
    batch: int = 1,
    rounds: int = 30,
    threads: int = 1,
) -> ExportedScore:
    """Score a detector with its graph in place of its backbone and pyramid, beside the simulation.

    Args:
        engine, recipe: what built it.
        detector: on the CPU, calibrated; left as it was, at `precision`.
        images: test images.
        runtime: runs the graph.
        precision: the detector's.
        batch: images at a time while timing.
        rounds: of timing.
        threads: of the runtime while timing; 0: all.

    Raises:
        ExportError: a layer cannot be exported; the message names it.
    """
    detector.eval()

    def score(run: Run | None) -> dict[str, dict[str, Any]]:
        with computed_by(detector, run):
            found = engine.predict(detector, images, recipe)
        rows = measure(images, found, precision=str(precision), engine=engine.name).measurements
        return {row["metric"]: row for row in rows}

    set_precision(detector, FP)
    full = export_pyramid(detector)
    set_precision(detector, precision)
    exported = export_pyramid(detector)
    session = runtime.load(exported.model, threads=threads)
    reference = runtime.load(full.model, threads=threads)
    inputs = normalized(detector, engine.inputs(images, range(min(batch, len(images))), recipe))
    integers, floats = on_integers(session, exported.integers.layers)
    with in_float64([detector.backbone]):
        floor = score(None)
    return ExportedScore(
        simulated=score(None),
        floor=floor,
        exported=score(lambda x: [torch.from_numpy(y) for y in session.run(x.numpy())]),
        integers=integers,
        floats=floats,
        file_bytes=len(exported.model),
        latency=time_in_turns(
            session, reference, np.ascontiguousarray(inputs.numpy()), rounds=rounds
        ),
    )


@contextmanager
def computed_by(detector: nn.Module, run: Run | None) -> Iterator[None]:
    """Let `run` compute the levels of a detector's pyramid within the block; None: the detector itself.

    Args:
        detector: in eval mode.
        run: from normalized images (N, 3, H, W) to the levels, from fine to coarse.
    """
    backbone = detector.backbone
    if run is not None:
        names = list(_levels(detector, torch.zeros(_EXAMPLE)))
        detector.backbone = _ComputedElsewhere(backbone, names, run)
    try:
        yield
    finally:
        detector.backbone = backbone


class _ComputedElsewhere(nn.Module):
    """A backbone whose levels something else computes; all else is asked of the one it stands for."""

    def __init__(self, backbone: nn.Module, names: list[str], run: Run) -> None:
        super().__init__()
        self.names, self.run = names, run
        self.hidden = (backbone,)  # no child: its quantizers are not asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["hidden"][0], name)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        return OrderedDict(zip(self.names, self.run(x), strict=True))


class _Levels(nn.Module):
    """A backbone that returns its levels in a row."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(x).values())


@torch.no_grad()
def _levels(detector: nn.Module, images: Tensor) -> dict[str, Tensor]:
    return detector.eval().backbone(images)


def _log_stride(level: Tensor) -> int:
    return round(math.log2(_EXAMPLE[-1] / level.shape[-1]))
