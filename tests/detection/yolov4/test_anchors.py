"""Anchors by k-means: a fixed point, without random numbers, of boxes as they are trained on."""

import pytest
import torch

from lowbit.detection.yolov4.anchors import ORIGINAL, box_shapes, kmeans_anchors, shape_iou
from tests.detection.yolov4 import formulas


def shapes(count=200, seed=0):
    return 4 + 200 * torch.rand(count, 2, generator=torch.manual_seed(seed)) ** 2


def test_overlap_of_shapes_is_that_of_boxes_about_one_center():
    found = shape_iou(shapes(20).double(), torch.tensor(ORIGINAL, dtype=torch.float64))
    for row, shape in zip(found.tolist(), shapes(20).double().tolist(), strict=True):
        assert row == pytest.approx([formulas.shape_iou(shape, anchor) for anchor in ORIGINAL])


def test_every_anchor_is_the_mean_of_the_boxes_that_it_fits_best():
    boxes = shapes()
    anchors = kmeans_anchors(boxes)
    areas = [w * h for w, h in anchors.tolist()]
    assert anchors.shape == (9, 2) and areas == sorted(areas)
    groups = {k: [] for k in range(9)}
    for shape in boxes.tolist():
        fits = [formulas.shape_iou(shape, anchor) for anchor in anchors.tolist()]
        groups[fits.index(max(fits))].append(shape)
    for k, group in groups.items():
        mean = [sum(sides) / len(group) for sides in zip(*group, strict=True)]
        assert anchors[k].tolist() == pytest.approx(mean, rel=1e-4)


def test_nine_groups_are_found():
    centers = torch.tensor([[8.0 * 2**i, (8.0 + 4 * (i % 2)) * 2**i] for i in range(9)])
    boxes = (centers[:, None] * torch.tensor([0.98, 1.0, 1.02])[None, :, None]).flatten(0, 1)
    torch.testing.assert_close(kmeans_anchors(boxes), centers[centers.prod(1).argsort()])


def test_the_order_of_boxes_and_the_random_state_do_not_matter():
    boxes = shapes()
    first = kmeans_anchors(boxes)
    torch.rand(3)
    torch.testing.assert_close(kmeans_anchors(boxes.flip(0)), first)


def test_too_few_shapes_are_refused():
    with pytest.raises(
        ValueError, match=r"2 different shapes, too few for nine.*Set anchors to orig"
    ):
        kmeans_anchors(torch.tensor([[1.0, 2.0], [3.0, 4.0]] * 20))


def test_boxes_are_measured_on_resized_images():
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    images = [(100, 200, boxes), (300, 100, boxes[:0]), (50, 50, boxes)]
    found = box_shapes(images, shorter=50, longest=80)
    assert found.tolist() == [[8.0, 16.0], [20.0, 40.0]]  # the longer side of the first is 80
    assert box_shapes(images, shorter=None, longest=80).tolist() == [[20.0, 40.0]] * 2
