"""COCO's average precision of detections in COCO's format, for every engine."""

import contextlib
import io
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lowbit.common.text import brief
from lowbit.detection.evaluation.bootstrap import METRICS, Spread, draw_images, redraw, spread


class Scores(NamedTuple):
    """Average precision in percent: over all classes by metric, and AP by class.

    A metric without annotated objects (APl without a large object) is left out, and so is a class
    without objects. `spreads` are bootstrap errors of the overall numbers over the images; empty if
    not requested or not known.
    """

    overall: dict[str, float]
    classes: dict[str, float]
    spreads: dict[str, Spread] = {}


def evaluate(truth: dict[str, Any], detections: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the overall average precisions; see `score`."""
    return score(truth, detections).overall


def score(truth: dict[str, Any], detections: Iterable[dict[str, Any]], *, draws: int = 0) -> Scores:
    """Score detections: AP (mean over IoU .50:.05:.95), AP50, AP75, and AP by area and class.

    APs, APm and APl are for objects under 32², up to 96² and over 96² pixels. Without any detection
    the result is 0, where pycocotools fails and Detectron2 returns nan.

    Args:
        truth: annotations in COCO's format.
        detections: dictionaries with image_id, category_id, bbox (x, y, width, height) and score.
        draws: bootstrap draws of the images, for the spreads.

    Raises:
        ValueError: there is no annotated object, so precision is not defined.
    """
    evaluated: list[dict[str, Any]] = []
    runs = _accumulated(match(truth, detections), evaluated)
    if draws:
        drawn = redraw(runs, draw_images(len(truth["images"]), draws))
    else:
        drawn = {}
        deque(runs, maxlen=0)
    run = COCOeval(iouType="bbox")
    run.eval = {
        part: np.concatenate([found[part] for found in evaluated], axis=_CLASSES[part])
        for part in _CLASSES
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its table
        run.summarize()
    overall = dict(zip(METRICS, run.stats[: len(METRICS)].tolist(), strict=True))
    precision = run.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all areas
    names = [category["name"] for category in _sorted_classes(truth)]
    classes = {name: float(np.mean(precision[:, :, k])) for k, name in enumerate(names)}
    # pycocotools returns -1 for a metric without objects.
    scores = ({n: 100 * v for n, v in part.items() if v >= 0} for part in (overall, classes))
    spreads = {name: spread(values) for name, values in drawn.items()}
    return Scores(*scores, {name: known for name, known in spreads.items() if known})


def match(truth: dict[str, Any], detections: Iterable[dict[str, Any]]) -> Iterator[COCOeval]:
    """Match detections with objects at every IoU: one run of pycocotools a class, after another.

    A run holds some kilobytes for every image with a detection; the classes of COCO together would hold
    gigabytes. Arguments as in `score`.

    Raises:
        ValueError: there is no annotated object, or a detection is in none of the images.
    """
    if not truth["annotations"]:
        raise ValueError(
            f"none of the {len(truth['images'])} images has an annotated object; average precision "
            "was not computed. Evaluate on images with objects."
        )
    known = {image["id"] for image in truth["images"]}
    objects, found = _by_class(truth["annotations"]), _by_class(detections)
    images = (d["image_id"] for theirs in found.values() for d in theirs)
    strange = next((image_id for image_id in images if image_id not in known), None)
    if strange is not None:
        raise ValueError(
            f"a detection is in image {brief(strange)}, which is none of the {len(known)} images; "
            "average precision was not computed. Detect on the images that are scored."
        )
    for category in _sorted_classes(truth):
        theirs = [
            {**d, "id": number, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0}
            for number, d in enumerate(found.get(category["id"], ()), 1)
        ]
        ours = [dict(annotation) for annotation in objects.get(category["id"], ())]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            indices = [
                _index({"images": truth["images"], "categories": [category], "annotations": part})
                for part in (ours, theirs)
            ]
            run = COCOeval(*indices, iouType="bbox")
            run.evaluate()
        yield run


def to_detections(
    image_id: int, boxes, scores, labels, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return one image's detections in COCO's format.

    Args:
        image_id: the image's id.
        boxes: (n, 4) tensor, x1 y1 x2 y2 in pixels.
        scores: (n,) tensor.
        labels: (n,) tensor, from 0.
        category_ids: category ids by label; None: they count from 1.
    """
    corners = boxes.detach().cpu().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": label + 1 if category_ids is None else category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            corners, scores.detach().cpu().tolist(), labels.cpu().tolist(), strict=True
        )
    ]


_CLASSES = {"precision": 2, "recall": 1}  # the axis of the classes


def _accumulated(runs: Iterable[COCOeval], evaluated: list[dict[str, Any]]) -> Iterator[COCOeval]:
    """Pass runs on, and keep the precisions and recalls of each."""
    for run in runs:
        with contextlib.redirect_stdout(io.StringIO()):
            run.accumulate()
        evaluated.append({part: run.eval[part] for part in _CLASSES})
        yield run


def _sorted_classes(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(truth["categories"], key=itemgetter("id"))


def _by_class(entries: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found = defaultdict(list)
    for entry in entries:
        found[entry["category_id"]].append(entry)
    return found


def _index(dataset: dict[str, Any]) -> COCO:
    index = COCO()
    index.dataset = dataset
    index.createIndex()
    return index
