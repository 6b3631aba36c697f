"""Check that a checkpoint works in the suite: every step once, on few images, in under two minutes.

Load it, quantize it, calibrate it, run it forward and backward at every precision, classify digits by
its features, build a quantized detector on it. A failed step skips only the steps that depend on it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from lowbit.backbones import load_backbone, pyramid_info
from lowbit.benchmark.checkpoint_check.network_health import CALIBRATION_IMAGES, Subject
from lowbit.common.text import printable
from lowbit.detection import Recipe as DetectionRecipe
from lowbit.detection.detector.initial_weights import initialize, start_from_backbone
from lowbit.detection.detector.quantize import normalized, quantize_detector
from lowbit.detection.engines import get_engine
from lowbit.detection.stage import load_images
from lowbit.quant import Precision, calibrate, get_policy, quantize, quantized_layers

PRECISIONS = ("FP", "8w8a", "6w6a", "5w5a", "4w4a", "3w3a", "2w4a")
_DETECTOR_PRECISION = Precision(4, 4)
_LONGEST = 10_000  # characters of a detail
_FAITHFUL = 0.9  # cosine with full precision below which a network counts as broken at 8 bits

Status = Literal["passed", "failed", "skipped"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """The outcome of one step: its status, a detail and the numbers."""

    name: str
    status: Status
    detail: str
    seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)


class _UnsoundError(Exception):
    """A step ran but gave an unsound result; args are the detail and the numbers."""


class _NotApplicableError(Exception):
    """A step that is not possible with this network."""


_Found = tuple[str, dict[str, Any]]  # detail and numbers


def check(
    path: Path | str,
    *,
    architecture: str | None = None,
    policy: str = "ssql",
    precisions: Sequence[str] = PRECISIONS,
) -> Iterator[Finding]:
    """Run all steps on a checkpoint and yield each finding when it is ready.

    Args:
        path: the checkpoint.
        architecture: its network; None: as given by the file or its shapes.
        policy: a quantization policy's name.
        precisions: bit-widths to try.

    Raises:
        ValueError: a precision or the policy is unknown.
    """
    bits = [Precision.parse(precision) for precision in precisions]
    get_policy(policy)
    trial = _Trial(str(path), architecture, policy, len(bits))
    yield (loaded := _try("load", trial.load))
    yield (ready := _try(f"quantize ({policy})", trial.quantize, needs=loaded))
    for precision in bits:
        yield _try(str(precision), partial(trial.run_at, precision), needs=ready)
    yield _try("detection", trial.detect, needs=loaded)


def _try(name: str, step: Callable[[], _Found], *, needs: Finding | None = None) -> Finding:
    if needs is not None and needs.status != "passed":
        return Finding(name, "skipped", f"not tried: {needs.name} {needs.status}")
    started = time.monotonic()
    status: Status = "failed"
    try:
        detail, numbers = step()
        status = "passed"
    except _NotApplicableError as error:
        status, detail, numbers = "skipped", str(error), {}
    except _UnsoundError as error:
        detail, numbers = error.args
    except Exception as error:  # any error of an unknown network is a finding
        _logger.debug("%s", name, exc_info=True)
        detail, numbers = f"{type(error).__name__}: {error}", {}
    detail = printable(detail, _LONGEST)
    return Finding(name, status, detail, round(time.monotonic() - started, 1), numbers)


class _Trial:
    """The steps, in order; holds the network that they share."""

    def __init__(self, path: str, architecture: str | None, policy: str, precisions: int) -> None:
        self.path, self.architecture, self.policy = path, architecture, policy
        self.precisions = precisions

    def load(self) -> _Found:
        """Load the backbone strictly."""
        backbone, report = load_backbone(self.path, self.architecture)
        self.network = backbone.eval()
        numbers = {"architecture": report.architecture, "sha256": report.sha256}
        return str(report).replace("\n", "; "), numbers

    def quantize(self) -> _Found:
        """Quantize and calibrate the backbone."""
        quantize(self.network, self.policy)
        self.subject = subject = Subject(self.network, precisions=self.precisions)
        calibrate(self.network, [subject.images(CALIBRATION_IMAGES)])
        layers = len(quantized_layers(self.network))
        images = f"{CALIBRATION_IMAGES} digits of {subject.size} pixels"
        detail = f"{layers} layers; calibrated on {images}"
        if not subject.can_probe:
            detail += f"; no probe, {subject.flops / 1e9:.0f} GFLOP per image take too long"
        return detail, {"layers": layers, "image_size": subject.size, "flops": subject.flops}

    def run_at(self, precision: Precision) -> _Found:
        """Run one precision forward and backward, and classify digits by its features."""
        found = self.subject.respond(precision)
        numbers = vars(found) | {"digits": None, "rounding": None}
        if not found.finite:
            raise _UnsoundError("NaN or infinity among features or gradients", numbers)
        detail = (
            f"cosine with FP {found.cosine:.3f}, gradient reaches {found.reached} of "
            f"{found.weights} weights, "
        )
        if self.subject.can_probe:
            numbers["digits"], moved, count = self.subject.probe(precision)
            numbers["rounding"] = 100 * moved / count
            detail += f"digits {numbers['digits']:.0f} %, rounding decides {moved} of {count}"
        else:
            detail += "no probe"
        if problem := _problem(self.subject, precision, numbers):
            raise _UnsoundError(f"{detail}: {problem}", numbers)
        return detail, numbers

    def detect(self) -> _Found:
        """Build a RetinaNet on the backbone, quantize it and run it on two scenes."""
        start = start_from_backbone(self.path, self.architecture)
        try:
            levels = pyramid_info(start.network)
        except ValueError as error:
            raise _NotApplicableError(str(error)) from error
        engine = get_engine("auto")
        recipe = DetectionRecipe(
            checkpoint=self.path,
            engine=engine.name,
            device="cpu",
            features=tuple(level.name for level in levels[-2:]),
            train_images=8,
            test_images=2,
            calibration_images=8,
        )
        detector = engine.build(recipe, start, classes=10)
        initialize(detector, start)
        few = engine.inputs(load_images(recipe, "train"), range(8), recipe)
        quantize_detector(detector, get_policy(self.policy), _DETECTOR_PRECISION, batches=[few])
        with torch.no_grad():
            maps = detector.eval().backbone(normalized(detector, few))
        boxes = engine.predict(detector, load_images(recipe, "test"), recipe)
        numbers = {
            "engine": engine.name,
            "precision": str(_DETECTOR_PRECISION),
            "boxes": len(boxes),
        }
        if not all(bool(features.isfinite().all()) for features in maps.values()):
            raise _UnsoundError("NaN or infinity in the feature pyramid", numbers)
        what = f"RetinaNet at {_DETECTOR_PRECISION} on 2 scenes, engine {engine.name}"
        return f"{what}, pyramid of {len(maps)} levels finite", numbers


def _problem(subject: Subject, precision: Precision, numbers: dict[str, Any]) -> str | None:
    """Return what is unsound. Few bits may lose all accuracy; 8 bits must lose almost none."""
    if numbers["reached"] == 0:
        return "no weight can learn"
    if min(precision.weight_bits, precision.activation_bits) < 8:
        return None
    if numbers["cosine"] < _FAITHFUL:
        return f"at this bit-width it should be above {_FAITHFUL}: outliers, or a damaged file?"
    if numbers["digits"] is not None and numbers["digits"] < subject.chance():
        return "no better than guessing, worse than random weights; is it the right file?"
    return None
