"""Average precision on other draws of the images, against pycocotools on sets with images repeated."""

import numpy as np
import pytest

from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.scoring.matching import match
from lowbit.detection.scoring.resampling import METRICS, resample

IMAGES = 24


def _scene(seed=0, *, images=IMAGES, classes=3):
    """Objects of all areas, some of them crowds, and detections near and far from them."""
    draw = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(images):
        for _ in range(draw.integers(0, 5)):
            side = float(draw.choice([12, 28, 36, 70, 100, 180]) * draw.uniform(0.9, 1.1))
            x, y = draw.uniform(0, 300, size=2).tolist()
            category = int(draw.integers(1, classes + 1))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": int(draw.random() < 0.1),
                }
            )
            for _ in range(draw.integers(0, 4)):
                moved = np.array([x, y, side, side]) + draw.normal(0, 0.12 * side, size=4)
                wrong = draw.random() < 0.15
                found = int(draw.integers(1, classes + 1)) if wrong else category
                detections.append(_detection(image, found, moved, draw.random()))
        for _ in range(draw.integers(0, 4)):
            box = [*draw.uniform(0, 300, size=2), *draw.uniform(10, 120, size=2)]
            category = int(draw.integers(1, classes + 1))
            detections.append(_detection(image, category, box, draw.random() * 0.7))
    truth = {
        "info": {},
        "images": [{"id": i, "width": 500, "height": 500} for i in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 2)],  # one is absent
        "annotations": annotations,
    }
    return truth, detections


def _detection(image, category, box, confidence):
    box = [float(side) for side in box[:2]] + [max(float(side), 1.0) for side in box[2:]]
    return {"image_id": image, "category_id": category, "bbox": box, "score": float(confidence)}


def draw_images(n, draws, *, seed=0):
    """Return how often each of n images is drawn in each draw of n, (n, draws)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).T


def _repeated(truth, detections, times):
    """Write the set down in which image i occurs times[i] times, under ids of its own."""
    images, annotations, found = [], [], []
    for image, count in enumerate(times):
        for _ in range(count):
            new = {"image_id": len(images)}
            images.append({**truth["images"][image], "id": len(images)})
            annotations += [{**a, **new} for a in truth["annotations"] if a["image_id"] == image]
            found += [{**d, **new} for d in detections if d["image_id"] == image]
    annotations = [{**a, "id": place} for place, a in enumerate(annotations, 1)]
    return {**truth, "images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", range(3))
def test_every_draw_is_what_pycocotools_says_of_the_repeated_images(seed):
    truth, detections = _scene(seed)
    weights = draw_images(IMAGES, 12, seed=seed)
    found = resample(match(truth, detections), weights)
    assert (found["AP"].std() > 0.5) and set(found) == set(METRICS)
    for draw, times in enumerate(weights.T):
        expected = score(*_repeated(truth, detections, times)).overall
        ours = {name: values[draw] for name, values in found.items() if not np.isnan(values[draw])}
        assert ours == pytest.approx(expected, abs=1e-4)


def test_every_image_once_is_the_score_itself():
    truth, detections = _scene(7, images=60)
    found = resample(match(truth, detections), np.ones((60, 1), dtype=int))
    expected = score(truth, detections).overall
    assert {name: values.item() for name, values in found.items()} == pytest.approx(expected)


def test_more_draws_than_are_held_at_once_are_the_same_draws():
    truth, detections = _scene(1)
    run = match(truth, detections)
    weights = draw_images(IMAGES, 510)
    found, alone = resample(run, weights), resample(run, weights[:, 505:])
    for name in METRICS:
        np.testing.assert_array_equal(found[name][505:], alone[name])


def test_a_draw_without_a_class_leaves_it_out_and_one_without_objects_is_undefined():
    truth, detections = _scene(3, images=3, classes=2)
    first = {a["category_id"] for a in truth["annotations"] if a["image_id"] == 0}
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    nothing = {**truth, "images": [*truth["images"], {"id": 3, "width": 500, "height": 500}]}
    weights = np.array([[4, 0], [0, 0], [0, 0], [0, 4]])
    found = resample(match(nothing, detections), weights)
    assert first and np.isnan(found["AP"][1])
    expected = score(*_repeated(nothing, detections, weights[:, 0])).overall
    assert found["AP"][0] == pytest.approx(expected["AP"], abs=1e-4)
