"""What each test image adds to the error of a row, from the predictions that its jobs kept."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.results.result_file import job_folder
from lowbit.benchmark.results.verdicts import SUBMISSIONS
from lowbit.common.input_files.parquet_pages import Bounds, check_pages
from lowbit.detection.scoring.half_samples import deviations
from lowbit.detection.scoring.halves_file import FILE as HALVES
from lowbit.detection.scoring.halves_file import Halved, read_halves

PREDICTIONS = "predictions.parquet"
_TOLERANCE = 1e-6  # %: answers further from the row's number are not those it came from
_FACTS = ("split", "id", "label")

_logger = logging.getLogger(__name__)

Jobs = str | tuple["Jobs", ...]
"""A job's id, or several that are averaged, each counting once: seeds of pretrainings, say."""


@dataclass(frozen=True)
class Deviations:
    """What each image, or each random half of the images, adds to the error of a number over the images.

    Attributes:
        answered: tells which images or halves those are.
        values: one each, in % of the metric; the squares of two rows' difference sum to the squared
            error of their difference.
        images: how many there are.
    """

    answered: str
    values: np.ndarray
    images: int


class AnsweredImages:
    """The answers of a runs folder's jobs; those without a file of predictions have none."""

    def __init__(self, runs_dir: Path):
        self._runs_dir = Path(runs_dir)

    def deviations(
        self, jobs: Jobs, *, value: float, metric: str, precision: str, split: str
    ) -> Deviations | None:
        """Return the deviations of the mean over jobs.

        A detector's numbers are known on halves of the images. None where a job kept neither these nor
        predictions, they are of other images than another's, or they do not give `value` (in %).
        """
        if metric not in ("top1", "mean_per_class"):
            return self._on_halves(jobs, value, (split, precision, metric))
        parts = [self._part(job, split, precision) for job in _each(jobs)]
        if not parts or any(part is None for part in parts):
            return None
        images = parts[0][0]
        if any(part[0].key != images.key for part in parts):
            return None
        answers = dict(zip(_each(jobs), (right for _, right in parts), strict=True))
        classes = images.classes if metric == "mean_per_class" else np.zeros_like(images.classes)
        sizes = np.bincount(classes)
        right = _mean(jobs, answers)
        shares = np.bincount(classes, weights=right) / sizes
        if abs(100 * shares.mean() - value) > _TOLERANCE:
            return None
        weight = 100 / (len(sizes) * sizes[classes])
        values = weight * (right - shares[classes])
        return Deviations(f"{images.key} {metric}", values, len(values))

    def _on_halves(
        self, jobs: Jobs, value: float, where: tuple[str, str, str]
    ) -> Deviations | None:
        found = {job: self._halved(job) for job in _each(jobs)}
        if not found or any(each is None or where not in each.halves for each in found.values()):
            return None
        sets = {(each.key, each.images) for each in found.values()}
        numbers = {job: np.array([each.values[where]]) for job, each in found.items()}
        if len(sets) > 1 or abs(float(_mean(jobs, numbers)[0]) - value) > _TOLERANCE:
            return None
        halves = _mean(jobs, {job: each.halves[where] for job, each in found.items()})
        if np.isnan(halves).any() or np.ptp(halves) < _TOLERANCE:
            return None
        ((key, images),) = sets
        return Deviations(f"halves {key} {where[2]}", deviations(halves), images)

    def _halved(self, job: str) -> Halved | None:
        path = job_folder(self._runs_dir, job) / HALVES
        try:
            stat = path.stat()
        except OSError:
            return None
        return _read_halves(path, stat.st_mtime_ns, stat.st_size)

    def _part(self, job: str, split: str, precision: str) -> tuple["_Images", np.ndarray] | None:
        splits = _read(*found) if (found := self._file(job)) else {}
        if split not in splits or precision not in splits[split][1]:
            return None
        images, right = splits[split]
        return images, np.unpackbits(right[precision], count=len(images.classes))

    def _file(self, job: str) -> tuple[Path, int, int] | None:
        """Return a job's file of predictions, its time and its size."""
        for folder in (self._runs_dir / job, job_folder(self._runs_dir, job), self._sent.get(job)):
            try:
                stat = folder and (folder / PREDICTIONS).stat()
            except OSError:
                continue
            if stat:
                return folder / PREDICTIONS, stat.st_mtime_ns, stat.st_size
        return None

    @cached_property
    def _sent(self) -> Mapping[str, Path]:
        found = sorted(self._runs_dir.glob(f"{SUBMISSIONS}/*/*/{PREDICTIONS}"))
        return {path.parent.name: path.parent for path in found}


@dataclass(frozen=True)
class _Images:
    """The images of a split: a hash of their ids and labels, and their classes (N,) from 0."""

    key: str
    classes: np.ndarray


@cache
def _read(path: Path, changed: int, size: int) -> dict[str, tuple[_Images, dict[str, np.ndarray]]]:
    """Return the images of each split and, by precision, which were answered right, as packed bits."""
    try:
        check_pages(path, Bounds())  # it may be another's
        table = pq.read_table(path, read_dictionary=["split"], pre_buffer=False, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        _logger.warning("%s was not used: %s", path, error)
        return {}
    if not set(_FACTS) <= set(table.column_names):
        return {}
    split, ids, label = (table[name].to_numpy() for name in _FACTS)
    precisions = [name for name in table.column_names if name not in _FACTS]
    right = {name: table[name].to_numpy() == label for name in precisions}
    found = {}
    for name in np.unique(split.astype(str)):
        at = split == name
        content = np.stack([ids[at], label[at]]).astype(np.int64)
        images = _images(content.tobytes())
        found[str(name)] = (images, {p: np.packbits(right[p][at]) for p in precisions})
    return found


@cache
def _read_halves(path: Path, changed: int, size: int) -> Halved | None:
    try:
        return read_halves(path)
    except (OSError, ValueError) as error:
        _logger.warning("%s was not used: %s", path, error)
        return None


@cache
def _images(content: bytes) -> _Images:
    labels = np.frombuffer(content, dtype=np.int64).reshape(2, -1)[1]
    _, classes = np.unique(labels, return_inverse=True)
    return _Images(hashlib.sha256(content).hexdigest(), classes)


def _each(jobs: Jobs) -> Iterator[str]:
    if isinstance(jobs, str):
        yield jobs
    else:
        for part in jobs:
            yield from _each(part)


def _mean(jobs: Jobs, answers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the share of right answers by image, (N,)."""
    if isinstance(jobs, str):
        return answers[jobs].astype(float)
    return np.mean([_mean(part, answers) for part in jobs], axis=0)
