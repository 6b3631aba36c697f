"""Which prediction is responsible for which object, against plain loops."""

import random

import pytest
import torch

from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.assignment import assign
from tests.detection.yolov4 import formulas

STRIDES, SIZES = (8, 16, 32), ((8, 12), (4, 6), (2, 3))  # of 64 x 96 pixels


def ours(boxes):
    place, which = assign(torch.tensor(boxes), torch.tensor(ORIGINAL), STRIDES, SIZES)
    assert place.tolist() == sorted(set(place.tolist()))
    return dict(zip(place.tolist(), which.tolist(), strict=True))


def drawn(count, seed):
    """Boxes within the image, of all sizes, their corners on quarters of pixels."""
    draw = random.Random(seed)
    boxes = []
    for _ in range(count):
        x, y = sorted(draw.sample(range(4 * 96), 2)), sorted(draw.sample(range(4 * 64), 2))
        boxes.append((x[0] / 4, y[0] / 4, x[1] / 4, y[1] / 4))
    return boxes


@pytest.mark.parametrize("seed", range(8))
def test_objects_belong_to_the_predictions_of_plain_loops(seed):
    boxes = drawn(40, seed)  # so many that some want the same prediction
    expected = formulas.assigned(boxes, ORIGINAL, STRIDES, SIZES)
    assert ours(boxes) == expected
    wanted = sum(
        max(1, sum(formulas.shape_iou(formulas.shape(b), a) > 0.213 for a in ORIGINAL))
        for b in boxes
    )
    assert len(expected) < wanted


def test_an_object_that_fits_no_anchor_has_its_best_one():
    (place,) = ours([(0.0, 0.0, 2.0, 2.0)])
    assert place == 0  # the smallest anchor in the first cell


def test_of_two_objects_in_one_place_the_better_fit_has_it():
    boxes = [(20.0, 20.0, 31.0, 35.0), (20.0, 20.0, 32.0, 36.0)]  # 12 x 16 is an anchor
    for order in (boxes, boxes[::-1]):
        best = order.index(boxes[1])
        place = 3 * 12 + 3  # row 28 // 8, column 26 // 8
        assert ours(order)[place] == best


def test_of_two_equal_objects_the_first_has_it():
    assert set(ours([(4.0, 4.0, 16.0, 20.0)] * 3).values()) == {0}


def test_a_center_on_the_images_border_is_in_the_last_cell():
    found = ours([(96.0 - 1e-3, 64.0 - 1e-3, 96.0, 64.0)])
    assert list(found) == [8 * 12 - 1]


def test_an_image_without_objects_has_no_positive():
    place, which = assign(torch.zeros(0, 4), torch.tensor(ORIGINAL), STRIDES, SIZES)
    assert len(place) == len(which) == 0
