"""Boxes stay with their objects through windows, resizing and mosaics."""

import random

import pytest
import torch

from lowbit.detection.yolov4.mosaic import Sample, cut, mosaic, resize, window
from tests.detection.yolov4 import formulas

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0))


def painted(box, label, size=(80, 100)):
    """A black image with one object in its label's colour."""
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    x1, y1, x2, y2 = map(int, box)
    pixels[:, y1:y2, x1:x2] = torch.tensor(COLOURS[label], dtype=torch.uint8)[:, None, None]
    return Sample(pixels, torch.tensor([box], dtype=torch.float32), torch.tensor([label]))


def seen(pixels, label):
    """The box around all pixels that are closer to a label's colour than to black; None: none."""
    colour = torch.tensor(COLOURS[label], dtype=torch.float32)[:, None, None]
    own = (pixels.float() - colour).abs().amax(0) < 125
    if not own.any():
        return None
    rows, columns = own.any(1).nonzero(), own.any(0).nonzero()
    ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [float(end) for end in ends]


def random_boxes(count, seed, size=(80, 100)):
    draw = random.Random(seed)
    rows, columns = size
    for _ in range(count):
        x, y = draw.randrange(columns - 12), draw.randrange(rows - 12)
        yield (x, y, draw.randrange(x + 8, columns + 1), draw.randrange(y + 8, rows + 1))


@pytest.mark.parametrize("seed", range(5))
def test_a_window_keeps_the_boxes_of_plain_loops(seed):
    boxes = list(random_boxes(30, seed))
    sample = Sample(
        torch.zeros(3, 80, 100, dtype=torch.uint8),
        torch.tensor(boxes, dtype=torch.float32),
        torch.arange(30),
    )
    top, left, height, width = 13, 21, 40, 50
    expected = []
    for label, box in enumerate(boxes):
        x1, y1, x2, y2 = box[0] - left, box[1] - top, box[2] - left, box[3] - top
        part = [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]
        sides = (part[2] - part[0], part[3] - part[1])
        if min(sides) >= 2 and sides[0] * sides[1] >= 0.1 * formulas.area(box):
            expected.append((label, part))
    found = window(sample, top, left, height, width)
    assert found.pixels.shape == (3, height, width)
    assert list(zip(found.labels.tolist(), found.boxes.tolist(), strict=True)) == expected
    assert 5 < len(expected) < 30


def test_a_box_is_where_its_object_is_seen_after_resizing():
    for label, box in enumerate(random_boxes(4, 0)):
        for size in ((40, 50), (160, 250), (37, 91)):
            found = resize(painted(box, label), size)
            assert found.pixels.shape[1:] == size
            assert found.boxes[0].tolist() == pytest.approx(seen(found.pixels, label), abs=1.01)


@pytest.mark.parametrize("seed", range(12))
def test_a_mosaics_boxes_are_where_its_objects_are_seen(seed):
    torch.manual_seed(seed)
    samples = [painted(box, label) for label, box in enumerate(random_boxes(4, seed))]
    found = mosaic(samples, 96)
    assert found.pixels.shape == (3, 96, 96) and found.pixels.dtype == torch.uint8
    boxes = dict(zip(found.labels.tolist(), found.boxes.tolist(), strict=True))
    assert len(boxes) == len(found.labels)
    for label in range(4):
        visible = seen(found.pixels, label)
        if label in boxes:
            assert boxes[label] == pytest.approx(visible, abs=1.51)
        elif visible is not None:  # a tenth of the object enlarged by 1.5 * 96 / 80, or a sliver
            whole = 1.8**2 * formulas.area(samples[label].boxes[0].tolist())
            assert formulas.area(visible) < max(0.11 * whole, 3 * 96)


def test_all_four_images_are_in_a_mosaic_and_fill_it():
    torch.manual_seed(0)
    samples = [painted((0, 0, 100, 80), label) for label in range(4)]
    corners = ((0, 0), (0, -1), (-1, 0), (-1, -1))
    for _ in range(20):
        found = mosaic(samples, 64)
        for label, (row, column) in enumerate(corners):
            assert found.pixels[:, row, column].tolist() == list(COLOURS[label])
        boxes = dict(zip(found.labels.tolist(), found.boxes.tolist(), strict=True))
        assert len(boxes) >= 3  # an image that has a narrow part may be lost
        for label, box in boxes.items():
            assert box == seen(found.pixels, label)
            assert formulas.area(box) >= round(0.2 * 64) ** 2
        assert (found.pixels.amax(0) >= 249).all()


def test_a_part_keeps_the_shape_of_things():
    """Rows and columns are scaled alike, up to whole pixels."""
    torch.manual_seed(0)
    for _ in range(20):
        found = cut(painted((48, 38, 52, 42), 0), 70, 30)
        for x1, y1, x2, y2 in found.boxes.tolist():
            if x1 > 0 and x2 < 30 and y1 > 0 and y2 < 70:
                assert (x2 - x1) / (y2 - y1) == pytest.approx(1, abs=0.05)


def test_images_without_objects_make_a_mosaic_without_boxes():
    empty = Sample(
        torch.zeros(3, 20, 30, dtype=torch.uint8),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
    )
    found = mosaic([empty] * 4, 32)
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,)
