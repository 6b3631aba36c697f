"""Cases of `bench.py evaluation`: AP with its intervals on a set of COCO val2017's size, over pycocotools.

Each side has a process of its own, which counts processor time and the memory that it adds to its
imports. The other side is pycocotools' evaluation with 1,000 bootstrap draws of the images, as this
suite once had it.
"""

import contextlib
import io
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowbit.tools.benchmarks.timing import Case

IMAGES, CLASSES, OBJECTS, DETECTIONS = 5_000, 80, 36_216, 500_000
DRAWS = 1000
SECONDS, MEMORY = 1 / 10, 1 / 4  # of pycocotools'


class Used(NamedTuple):
    """Processor time of the scores, s, and of their intervals, s; MiB added at the peak; the twelve metrics."""

    scores: float
    intervals: float
    memory: float
    metrics: list[float]


def cases(quick: bool) -> Iterator[Case]:
    """Score one set by both; every metric has to be equal to the last bit."""
    share = 20 if quick else 1
    ours, theirs = (_alone(part, share) for part in (_score, _score_by_pycocotools))
    assert ours.metrics == theirs.metrics, (ours.metrics, theirs.metrics)
    size = f"{IMAGES // share:,} images, {DETECTIONS // share:,} detections"
    yield _case(f"the twelve metrics ({size})", ours.scores, "pycocotools", theirs.scores)
    with_intervals = ours.scores + ours.intervals, theirs.scores + theirs.intervals
    what = f"pycocotools, {DRAWS:,} draws"
    yield _case(f"AP with intervals ({size})", with_intervals[0], what, with_intervals[1], SECONDS)
    memory = f"memory they add at their peak, {ours.memory:.0f} of {theirs.memory:.0f} MiB"
    yield Case(memory, None, what, None, ours.memory / theirs.memory, MEMORY)


def _case(name: str, ours: float, against: str, theirs: float, target: float | None = None) -> Case:
    return Case(name, ours, against, theirs, ours / theirs, target)


def _alone(part, share: int) -> Used:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, share).result()


def _score(share: int) -> Used:
    from lowbit.detection.scoring.half_samples import draw_halves
    from lowbit.detection.scoring.matching import match
    from lowbit.detection.scoring.precision_recall import precisions, recalls, summarize
    from lowbit.detection.scoring.resampling import resample

    before = _resident("VmRSS")
    truth, detections = made(share)
    start = time.process_time()
    matches = match(truth, detections)
    metrics = summarize(precisions(matches), recalls(matches))
    scored = time.process_time()
    resample(matches, draw_halves(matches.images))
    return _used(before, start, scored, list(metrics.values()))


def _score_by_pycocotools(share: int) -> Used:
    from lowbit.detection.scoring.matching import match
    from lowbit.detection.scoring.reference import evaluated
    from lowbit.detection.scoring.resampling import resample

    before = _resident("VmRSS")
    truth, detections = made(share)
    start = time.process_time()
    run = evaluated(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
        run.summarize()
    scored = time.process_time()
    matches = match(truth, detections)  # not counted: the draws' input
    began = time.process_time()
    images = matches.images
    draw = np.random.default_rng(0)
    resample(matches, draw.multinomial(images, np.full(images, 1 / images), size=DRAWS).T)
    used = _used(before, start, scored, run.stats.tolist())
    return used._replace(intervals=time.process_time() - began)


def _used(before: float, start: float, scored: float, metrics: list[float]) -> Used:
    now = time.process_time()
    return Used(scored - start, now - scored, _resident("VmHWM") - before, metrics)


def _resident(field: str) -> float:
    """Return this process's resident memory, MiB: VmRSS now, VmHWM at its peak.

    `ru_maxrss` would include its parent's.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def made(share: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and detections: one in six near an object, the others anywhere."""
    draw = np.random.default_rng(0)
    images, objects, number = IMAGES // share, OBJECTS // share, DETECTIONS // share
    frequent = draw.dirichlet(np.full(CLASSES, 0.7))
    image = np.sort(draw.integers(images, size=objects))
    kind = draw.choice(CLASSES, objects, p=frequent)
    boxes = _boxes(draw, objects)
    area = boxes[:, 2] * boxes[:, 3] * draw.uniform(0.5, 1, objects)
    crowd = draw.random(objects) < 0.01
    near = draw.random(number) < 1 / 6
    source = draw.integers(objects, size=number)
    away = draw.gamma(2, 0.06, number)
    moved = boxes[source] + draw.normal(size=(number, 4)) * (away * boxes[source, 2])[:, None]
    found = np.where(near[:, None], moved, _boxes(draw, number))
    found[:, 2:] = np.abs(found[:, 2:]).clip(1)
    where = np.where(near, image[source], draw.integers(images, size=number))
    what = np.where(near, kind[source], draw.integers(CLASSES, size=number))
    logit = np.where(near, draw.normal(0.5, 1.5, number) - 8 * away, draw.normal(-2.5, 1.2, number))
    scores = np.round(1 / (1 + np.exp(-logit)), 4)  # some are equal
    columns = (image, kind, boxes, area, crowd.astype(int))
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [
        {"id": n, **dict(zip(keys, values, strict=True))}
        for n, values in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    ]
    keys = ("image_id", "category_id", "bbox", "score")
    rows = zip(*(c.tolist() for c in (where, what, found, scores)), strict=True)
    truth = {
        "info": {},
        "images": [{"id": n, "width": 640, "height": 480} for n in range(images)],
        "categories": [{"id": n, "name": str(n)} for n in range(CLASSES)],
        "annotations": annotations,
    }
    return truth, [dict(zip(keys, values, strict=True)) for values in rows]


def _boxes(draw: np.random.Generator, number: int) -> np.ndarray:
    corners = draw.uniform((0, 0), (640, 480), (number, 2))
    return np.concatenate([corners, np.exp(draw.normal(4, 1, (number, 2))).clip(4, 500)], axis=1)
