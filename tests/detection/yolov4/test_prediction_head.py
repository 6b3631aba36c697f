"""Boxes that outputs stand for, against the formulas; what the head starts from."""

import math

import pytest
import torch

from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.prediction_head import YOLOv4Head, decode
from tests.detection.yolov4 import formulas

STRIDES, SIZES = (8, 16, 32), ((4, 8), (2, 4), (1, 2))
COUNT = 3 * (32 + 8 + 2)


def test_boxes_are_those_of_the_formulas():
    outputs = torch.randn(2, COUNT, 7, dtype=torch.float64, generator=torch.manual_seed(0))
    anchors = torch.tensor(ORIGINAL, dtype=torch.float64)
    found = decode(outputs, anchors, STRIDES, SIZES)
    assert found.shape == (2, COUNT, 4)
    for boxes, rows in zip(found.tolist(), outputs.tolist(), strict=True):
        cells = formulas.cells(STRIDES, SIZES, ORIGINAL)
        for box, row, cell in zip(boxes, rows, cells, strict=True):
            assert box == pytest.approx(formulas.decoded(row, *cell), rel=1e-6)


def test_a_center_reaches_its_cells_border_and_a_size_stays_finite():
    outputs = torch.tensor([[[9.0, 9.0, 500.0, 0.0]]]).expand(1, COUNT, 4)
    found = decode(outputs, torch.tensor(ORIGINAL), STRIDES, SIZES)
    assert found.isfinite().all()
    first = found[0, 0]
    assert 8 < (first[1] + first[3]) / 2 < 8 * 1.1  # beyond the border of the first cell, at 8
    assert (first[2] - first[0]).item() == pytest.approx(62.5 * ORIGINAL[0][0], rel=1e-4)


def test_outputs_of_a_map_are_where_decode_looks_for_them():
    """A single hot cell of each level, anchor and number of the predictor."""
    head = YOLOv4Head([8, 16, 32], classes=2, strides=STRIDES, norm=None)
    for part in head.levels:
        part.predictor.weight.data.zero_()
        part.predictor.bias.data.copy_(torch.arange(21.0))
        part.block.conv.bias.data.fill_(0.0)
    levels = [torch.zeros(1, c, *size) for c, size in zip((8, 16, 32), SIZES, strict=True)]
    outputs, sizes = head(levels)
    assert tuple(sizes) == SIZES and outputs.shape == (1, COUNT, 7)
    for place, (stride, anchor, _, _) in enumerate(formulas.cells(STRIDES, SIZES, ORIGINAL)):
        a = ORIGINAL.index(anchor) % 3
        assert outputs[0, place].tolist() == [7.0 * a + i for i in range(7)], stride


def test_rows_and_columns_are_not_exchanged():
    head = YOLOv4Head([8, 16, 32], classes=2, strides=STRIDES, norm=None)
    for part in head.levels:
        part.predictor.weight.data.fill_(1.0)
        part.block.conv.weight.data.zero_()
        part.block.conv.weight.data[:, :, 1, 1] = 1.0
    levels = [torch.zeros(1, c, *size) for c, size in zip((8, 16, 32), SIZES, strict=True)]
    levels[0][0, :, 2, 5] = 1.0
    outputs, _ = head(levels)
    (hot,) = (outputs[0, :32, 0] > 1).nonzero().flatten().tolist()
    cell = list(formulas.cells(STRIDES, SIZES, ORIGINAL))[hot]
    assert cell[2:] == (2, 5)


def test_objectness_starts_at_the_prior():
    head = YOLOv4Head([32, 64, 128], classes=3, strides=STRIDES, norm=None)
    zeros = [torch.zeros(1, c, *size) for c, size in zip((32, 64, 128), SIZES, strict=True)]
    outputs, _ = head(zeros)
    torch.testing.assert_close(outputs[..., 4].sigmoid(), torch.full((1, COUNT), 0.01))
    assert outputs[..., 5:].sigmoid().unique().tolist() == [0.5]
    assert math.isclose(head.anchors.sum().item(), sum(map(sum, ORIGINAL)))
