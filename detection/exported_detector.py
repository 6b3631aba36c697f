"""Run a detector with its backbone and pyramid as an integer graph, and its heads in floating point."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.engine_contract import Engine
from lowbit.detection.evaluation.measurements import measure
from lowbit.detection.recipe import Recipe
from lowbit.detection.scoring.same_detections import Shared, shared
from lowbit.export.onnx_export import Exported, Trace, trace_network
from lowbit.export.runtime import Session
from lowbit.quant import Precision
from lowbit.quant.float64 import in_float64

SIZE_MULTIPLE = 32
"""Pixels: what both engines pad images to a multiple of."""

_EXAMPLE = (2, 3, 256, 384)  # at least two places of the coarsest level, whose stride is 128

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class ExportedScore:
    """What a detector finds with a graph in place of its backbone and pyramid, beside its simulation.

    Attributes:
        exported, simulated, floor: measurements by metric: with the graph; of the simulation; of the
            simulation with the graph's part in float64, whose distance is what rounding alone does.
        agreement, noise_floor: detections that the simulation shares with the graph's run, and with that in
            float64.
    """

    exported: dict[str, dict[str, Any]]
    simulated: dict[str, dict[str, Any]]
    floor: dict[str, dict[str, Any]]
    agreement: Shared
    noise_floor: Shared


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
    return PyramidExporter(detector).export()


class PyramidExporter:
    """Exports a detector's backbone and pyramid (`export_pyramid`) at several precisions.

    It is traced anew only for precisions that switch other quantizers on, as full precision does.
    """

    def __init__(self, detector: nn.Module) -> None:
        self._detector, self._levels = detector, _Levels(detector.backbone)
        self._traces: list[Trace] = []

    def export(self) -> Exported:
        """Return the graph at the detector's current precision."""
        trace = next((trace for trace in self._traces if trace.fits(self._levels)), None)
        if trace is None:
            trace = self._trace()
            self._traces.append(trace)
        return trace.export(self._levels)

    def _trace(self) -> Trace:
        example = torch.zeros(_EXAMPLE)
        levels = _levels(self._detector, example).values()
        outputs = [f"p{_log_stride(level)}" for level in levels]
        return trace_network(self._levels, example, outputs=outputs, size_multiple=SIZE_MULTIPLE)


def score_exported(
    engine: Engine,
    detector: nn.Module,
    recipe: Recipe,
    images: DetectionSet,
    session: Session,
    *,
    precision: Precision,
) -> ExportedScore:
    """Score a detector with its exported graph in place of its backbone and pyramid.

    Args:
        engine, recipe: what built it.
        detector: on the CPU, calibrated, at `precision`; left as it was.
        images: test images.
        session: its graph (`export_pyramid`), loaded.
        precision: the detector's.
    """
    detector.eval()

    def found_by(run: Run | None) -> list[dict[str, Any]]:
        with computed_by(detector, run):
            return engine.predict(detector, images, recipe)

    simulated = found_by(None)
    with in_float64([detector.backbone]):
        floor = found_by(None)
    exported = found_by(lambda x: [torch.from_numpy(y) for y in session.run(x.numpy())])

    def numbers(detections: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        rows = measure(images, detections, precision=str(precision), engine=engine.name)
        return {row["metric"]: row for row in rows.measurements}

    return ExportedScore(
        exported=numbers(exported),
        simulated=numbers(simulated),
        floor=numbers(floor),
        agreement=shared(simulated, exported),
        noise_floor=shared(simulated, floor),
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
