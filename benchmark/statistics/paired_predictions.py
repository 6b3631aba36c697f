"""Compare two results of one seed by their saved predictions or detections of the same images."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from lowbit.benchmark.results.result_file import Result, job_folder, read_result
from lowbit.benchmark.statistics.paired_image_tests import (
    ImageTest,
    compare_answers,
    compare_halves,
)
from lowbit.benchmark.statistics.ranking import ALPHA
from lowbit.detection.scoring.half_samples import SMOOTH, bias_of

PREDICTIONS, DETECTIONS = "predictions", "detections"  # the artifacts
_TOLERANCE = 1e-6  # %: predictions further from the result's number are not the ones it came from

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """One measurement of one job, with what is needed to find it again in the job's files."""

    job_id: str
    metric: str
    precision: str
    split: str
    value: float
    stderr: float


def compare_images(a: Scored, b: Scored, runs_dir: Path | None) -> tuple[ImageTest, bool] | None:
    """Test a - b over their test images.

    Returns:
        The test, and whether it is paired: by the images themselves where both jobs' files are under
        `runs_dir`, else by the standard errors as if the images were two samples, which favours ties.
        None where there are no standard errors either.
    """
    found = _paired(a, b, runs_dir) if runs_dir else None
    if found is not None:
        return found, True
    error = float(np.hypot(a.stderr, b.stderr))
    if not error > 0:  # NaN: not known; 0: all right or all wrong, both
        return None
    difference, half = a.value - b.value, float(ndtri(1 - ALPHA / 2)) * error
    p = float(2 * ndtr(-abs(difference) / error))
    return ImageTest(difference - half, difference + half, p), False


def _paired(a: Scored, b: Scored, runs_dir: Path) -> ImageTest | None:
    folders = [_folder(runs_dir, side.job_id) for side in (a, b)]
    results = [folder and read_result(folder) for folder in folders]
    if not all(results):
        return None
    sides = list(zip((a, b), folders, results, strict=True))
    if all(PREDICTIONS in result.artifacts for result in results):
        return _paired_predictions(sides)
    if all(_detections(result, a.precision) for result in results):
        return _paired_detections(sides)
    return None


def _folder(runs_dir: Path, job_id: str) -> Path | None:
    """Find a job's folder: measured here, or added with a bundle."""
    candidates: Iterable[Path] = (
        job_folder(runs_dir, job_id),
        *runs_dir.glob(f"submissions/*/{job_id}"),
    )
    return next((folder for folder in candidates if folder.is_dir()), None)


def _paired_predictions(sides: list[tuple[Scored, Path, Result]]) -> ImageTest | None:
    parts = []
    for scored, folder, result in sides:
        path = folder / result.artifacts[PREDICTIONS]
        try:
            found = _predictions(path).get(scored.split)
        except (FileNotFoundError, ValueError) as error:
            _logger.warning("%s was not used: %s", path, error)
            return None
        if found is None or scored.precision not in found.classes:
            return None
        right = (found.classes[scored.precision] == found.labels).numpy()
        strata = found.labels.numpy() * (scored.metric == "mean_per_class")
        if abs(_accuracy(right, strata) - scored.value) > _TOLERANCE:
            _logger.warning("%s does not give the number of its job; it was not used.", path)
            return None
        parts.append((found, right, strata))
    (one, right_a, strata), (other, right_b, _) = parts
    if not (one.ids.equal(other.ids) and one.labels.equal(other.labels)):
        return None
    return compare_answers(right_a, right_b, strata)


@cache
def _predictions(path: Path) -> dict[str, Any]:
    from lowbit.transfer.scoring.predictions_file import (
        read_predictions,  # here: most comparisons need no torch
    )

    return {part.split: part for part in read_predictions(path)[0]}


def _accuracy(right: np.ndarray, strata: np.ndarray) -> float:
    shares = [right[strata == label].mean() for label in np.unique(strata)]
    return 100 * float(np.mean(shares))


def _detections(result: Result, precision: str) -> str | None:
    """Return the artifact of the detections at a precision."""
    names = (f"{DETECTIONS}_{precision}", DETECTIONS)
    return next((name for name in names if name in result.artifacts), None)


def _paired_detections(sides: list[tuple[Scored, Path, Result]]) -> ImageTest | None:
    metric = sides[0][0].metric
    smooth = SMOOTH.get(metric, metric)  # whose bias stands for this one's
    found, of_smooth = [], []
    for scored, folder, result in sides:
        path = folder / result.artifacts[_detections(result, scored.precision)]
        try:
            images, values = _halves(path)
        except (FileNotFoundError, ValueError, ImportError) as error:
            _logger.warning("%s was not scored on halves: %s", path, error)
            return None
        measured = _measured(result, smooth, scored)
        if metric not in values or measured is None:
            return None
        found.append((scored.value, values[metric]))
        of_smooth.append((measured, values[smooth]))
    bias = bias_of(*_difference(*of_smooth))
    return compare_halves(*_difference(*found), images, bias=bias)


def _measured(result: Result, metric: str, where: Scored) -> float | None:
    """Return a metric's number at the precision and on the split of another."""
    for number in result.measurements:
        if (number.metric, number.precision, number.split) == (
            metric,
            where.precision,
            where.split,
        ):
            return number.value
    return None


def _difference(
    one: tuple[float, np.ndarray], other: tuple[float, np.ndarray]
) -> tuple[float, np.ndarray]:
    return one[0] - other[0], one[1] - other[1]


@cache
def _halves(path: Path) -> tuple[int, dict[str, np.ndarray]]:
    from lowbit.detection import Recipe  # here: predictions need no detector
    from lowbit.detection.rescore import halve_detections

    result = read_result(path.parent)
    recipe = Recipe.model_validate(result.recipe)
    return halve_detections(recipe, path, identity=result.identity)
