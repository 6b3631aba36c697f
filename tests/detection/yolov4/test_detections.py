"""Detections chosen among predictions, against greedy loops."""

import torch

from lowbit.detection.yolov4.detections import Selection, select_detections
from tests.detection.yolov4 import formulas

SIZE = (64, 96)


def reference(boxes, scores, selection):
    """Take the best prediction of any class that overlaps no chosen one of its class too much."""
    ranked = sorted(
        (
            (score, place, label)
            for place, row in enumerate(scores)
            for label, score in enumerate(row)
        ),
        key=lambda entry: -entry[0],
    )
    chosen = []
    for score, place, label in ranked:
        x1, y1, x2, y2 = boxes[place]
        box = (max(x1, 0), max(y1, 0), min(x2, SIZE[1]), min(y2, SIZE[0]))
        overlaps = any(
            label == other and formulas.iou(box, kept) > selection.iou for kept, _, other in chosen
        )
        if score > selection.score and not overlaps:
            chosen.append((box, score, label))
    return chosen[: selection.count]


def random_predictions(count, classes, seed=0):
    generator = torch.manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([90.0, 60.0]) - 4
    sides = 4 + torch.rand(count, 2, generator=generator) * 40
    return torch.cat([corners, corners + sides], 1), torch.rand(count, classes, generator=generator)


def test_detections_are_those_of_greedy_loops():
    boxes, scores = random_predictions(80, 3)
    for selection in (Selection(score=0.3), Selection(score=0.3, iou=0.2), Selection(0.0, 0.5, 7)):
        expected = reference(boxes.tolist(), scores.tolist(), selection)
        found = select_detections(boxes, scores, SIZE, selection)
        assert len(found[0]) == len(expected) > 5
        torch.testing.assert_close(found[0], torch.tensor([e[0] for e in expected]))
        assert found[1].tolist() == [e[1] for e in expected]
        assert found[2].tolist() == [e[2] for e in expected]


def test_boxes_of_other_classes_do_not_suppress_each_other():
    box = torch.tensor([[1.0, 1, 30, 30]])
    _, scores, labels = select_detections(box, torch.tensor([[0.9, 0.8, 0.001]]), SIZE, Selection())
    assert labels.tolist() == [0, 1] and len(scores) == 2


def test_what_is_outside_of_the_image_is_no_detection():
    boxes = torch.tensor([[100.0, 1, 130, 30], [90.0, 1, 130, 30]])
    found, _, _ = select_detections(boxes, torch.tensor([[0.9], [0.8]]), SIZE, Selection())
    assert found.tolist() == [[90.0, 1, 96, 30]]
    none = select_detections(boxes, torch.zeros(2, 1), SIZE, Selection())
    assert [len(part) for part in none] == [0, 0, 0]
