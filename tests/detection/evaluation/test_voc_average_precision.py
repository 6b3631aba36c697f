"""VOC's metrics against VOC's definition, detection by detection; Detectron2's are in test_catalog.py."""

import numpy as np
import pytest
import torch

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.voc_average_precision import resample_voc, score_voc
from lowbit.detection.evaluation.voc_matching import match_voc
from tests.detection.scoring.annotated_sets import random_set


def annotated(seed, *, images=12, whole=True):
    """A set in VOC's style with difficult objects, and detections with scores of their own."""
    truth, detections = random_set(seed, images=images)
    draw = np.random.default_rng(seed)
    for annotation in truth["annotations"]:
        annotation["difficult"] = int(draw.random() < 0.2)
        if whole:
            annotation["bbox"] = [float(round(side)) for side in annotation["bbox"]]
    for place, found in enumerate(detections):
        found["score"] = (1 + (37 * place + seed) % 997) / 1000
    pixels = torch.zeros(images, 3, 4, 4, dtype=torch.uint8)
    where = lambda *_: ""  # noqa: E731
    return DetectionSet("set", "test", truth, pixels, "0" * 64, where, style="voc"), detections


def _reference(images, detections, category, threshold):
    """Return VOC's two metrics of a class: the kit's loop over detections, for whole corners."""
    objects = [a for a in images.truth["annotations"] if a["category_id"] == category]
    boxes = [(a["image_id"], *_corners(a["bbox"])) for a in objects]
    taken, right, wrong, points = set(), 0, 0, []
    number = sum(not a["difficult"] for a in objects)
    own = [d for d in detections if d["category_id"] == category]
    for found in sorted(own, key=lambda d: -d["score"]):
        x, y, w, h = found["bbox"]
        box = [float(f"{np.float32(v):.1f}") for v in (x + 1, y + 1, x + w, y + h)]
        ious = [_iou(box, b[1:]) if b[0] == found["image_id"] else -1 for b in boxes]
        best = int(np.argmax(ious)) if ious else 0
        if not ious or ious[best] <= threshold:
            wrong += 1
        elif not objects[best]["difficult"]:
            right, wrong = (right, wrong + 1) if best in taken else (right + 1, wrong)
            taken.add(best)
        points.append((right / number, right / max(right + wrong, 1e-9)))
    eleven = [max([p for r, p in points if r >= t], default=0) for t in np.arange(0, 1.1, 0.1)]
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[place:])
        before = recall
    return 100 * np.mean(eleven), 100 * area


def _corners(box):
    x, y, w, h = box
    return x + 1, y + 1, x + w, y + h


def _iou(a, b):
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1, 0) for i in (0, 1))
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return w * h / (sum(areas) - w * h)


@pytest.mark.parametrize("seed", range(6))
def test_the_metrics_are_vocs(seed):
    images, detections = annotated(seed)
    found = score_voc(images, detections)
    categories = sorted(
        {a["category_id"] for a in images.truth["annotations"] if not a["difficult"]}
    )
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        values = [_reference(images, detections, category, threshold) for category in categories]
        for metric, expected in zip(("voc07", "voc12"), np.mean(values, axis=0), strict=True):
            assert found.overall[f"{name}_{metric}"] == pytest.approx(expected)
    by_class = {
        images.classes[c - 1]: _reference(images, detections, c, 0.5)[0] for c in categories
    }
    assert found.classes == pytest.approx(by_class)


@pytest.mark.parametrize("whole", [True, False])
def test_every_image_once_is_the_score_itself(whole):
    images, detections = annotated(3, images=40, whole=whole)
    drawn = resample_voc(match_voc(images, detections), np.ones((40, 1), dtype=np.float32))
    expected = score_voc(images, detections).overall
    assert {name: value.item() for name, value in drawn.items()} == pytest.approx(
        expected, abs=1e-3
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_interval_excludes_its_own_number(seed):
    scores = score_voc(*annotated(seed, images=30), intervals=True)
    assert scores.spreads.keys() == scores.overall.keys()
    for name, known in scores.spreads.items():
        assert known.low <= scores.overall[name] <= known.high and known.stderr > 0


def test_objects_that_are_all_difficult_are_refused():
    images, detections = annotated(0)
    for annotation in images.truth["annotations"]:
        annotation["difficult"] = 1
    with pytest.raises(ValueError, match="only difficult objects or none"):
        score_voc(images, detections)
