"""COCO's average precision of detections in COCO's format, for every engine."""

import contextlib
import copy
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lowbit.common.atomic_file import atomic
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.bootstrap import METRICS, Spread, draw_images, redraw, spread

DETECTIONS = "detections.json"
IMAGE_NAMES = "image_names.json"


class Scores(NamedTuple):
    """Average precision in percent: over all classes by metric, and AP by class.

    A metric without annotated objects (APl without a large object) is left out, and so is a class
    without objects. `spreads` are bootstrap errors of the overall numbers over the images; empty if
    not requested or not known.
    """

    overall: dict[str, float]
    classes: dict[str, float]
    spreads: dict[str, Spread] = {}


def evaluate(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the overall average precisions; see `score`."""
    return score(truth, detections).overall


def score(truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, draws: int = 0) -> Scores:
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
    run = match(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and table
        run.accumulate()
        run.summarize()
    overall = dict(zip(METRICS, run.stats[: len(METRICS)].tolist(), strict=True))
    precision = run.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all areas
    names = {category["id"]: category["name"] for category in truth["categories"]}
    classes = {
        names[category_id]: float(np.mean(precision[:, :, place]))
        for place, category_id in enumerate(run.params.catIds)
    }
    # pycocotools returns -1 for a metric without objects.
    scores = ({n: 100 * v for n, v in part.items() if v >= 0} for part in (overall, classes))
    return Scores(*scores, _spreads(run, draws) if draws else {})


def match(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> COCOeval:
    """Match detections with objects, image by image, at every IoU; arguments as in `score`."""
    if not truth["annotations"]:
        raise ValueError(
            f"none of the {len(truth['images'])} images has an annotated object; average precision "
            "was not computed. Evaluate on images with objects."
        )
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(*_indices(truth, detections), iouType="bbox")
        run.evaluate()
    return run


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


def write_detections(
    folder: str | Path, detections: Sequence[dict[str, Any]], *, name: str = DETECTIONS
) -> str:
    """Write COCO's result file atomically, with all digits; return its name."""
    with atomic(Path(folder) / name) as file:
        file.write(json.dumps(list(detections)).encode())
    return name


def write_image_names(folder: str | Path, images: DetectionSet) -> dict[str, str]:
    """Write the file name of every image by its id, for VOC's sets, whose annotations have no ids.

    Returns:
        The artifact's path in the folder, by its name; empty for other sets, whose ids are their own.
    """
    if images.style != "voc":
        return {}
    names = {image["id"]: image["file_name"] for image in images.truth["images"]}
    with atomic(Path(folder) / IMAGE_NAMES) as file:
        file.write(json.dumps(names, indent=0).encode())
    return {"image_names": IMAGE_NAMES}


def read_detections(path: str | Path) -> list[dict[str, Any]]:
    """Read COCO's result file."""
    return json.loads(Path(path).read_bytes())


def _spreads(run: COCOeval, draws: int) -> dict[str, Spread]:
    drawn = redraw(run, draw_images(len(run.params.imgIds), draws))
    found = {name: spread(values) for name, values in drawn.items()}
    return {name: known for name, known in found.items() if known}


def _indices(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> tuple[COCO, COCO]:
    """Index copies of truth and detections for COCOeval, which modifies its input."""
    index = COCO()
    index.dataset = copy.deepcopy(truth)
    index.createIndex()
    if detections:
        return index, index.loadRes(copy.deepcopy(list(detections)))
    nothing = COCO()  # loadRes cannot load an empty list
    nothing.dataset = {**index.dataset, "annotations": []}
    nothing.createIndex()
    return index, nothing
