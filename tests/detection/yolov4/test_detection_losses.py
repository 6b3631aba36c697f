"""YOLOv4's losses against the formulas, in float64."""

import random

import pytest
import torch
from torchvision.ops import complete_box_iou_loss

from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.detection_losses import detection_losses
from lowbit.detection.yolov4.prediction_head import decode
from tests.detection.yolov4 import formulas
from tests.detection.yolov4.test_assignment import SIZES, STRIDES, drawn

COUNT = 3 * (96 + 24 + 6)
CLASSES = 3
ANCHORS = torch.tensor(ORIGINAL, dtype=torch.float64)


def computed(outputs, targets):
    """Our losses of outputs (N, P, 5 + K) and of (boxes, labels) of each image."""
    return detection_losses(
        outputs,
        decode(outputs, ANCHORS, STRIDES, SIZES),
        [
            {
                "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }
            for boxes, labels in targets
        ],
        anchors=ANCHORS,
        strides=STRIDES,
        sizes=SIZES,
    )


def random_outputs(seed, images=2):
    generator = torch.manual_seed(seed)
    return torch.randn(images, COUNT, 5 + CLASSES, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("seed", range(4))
def test_complete_iou_is_the_formulas(seed):
    pairs = list(zip(drawn(50, seed), drawn(50, seed + 100), strict=True))
    a, b = (torch.tensor(boxes, dtype=torch.float64) for boxes in zip(*pairs, strict=True))
    found = complete_box_iou_loss(a, b).tolist()
    assert found == pytest.approx([formulas.ciou_loss(x, y) for x, y in pairs], abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_those_of_plain_loops(seed):
    draw = random.Random(seed)
    targets = [(boxes, [draw.randrange(CLASSES) for _ in boxes]) for boxes in (drawn(5, seed), [])]
    outputs = random_outputs(seed)
    found = computed(outputs, targets)
    expected = formulas.losses(outputs.tolist(), targets, ORIGINAL, STRIDES, SIZES)
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, rel=1e-5)


def test_a_prediction_that_covers_an_object_but_is_not_responsible_is_ignored():
    """The neighbour of the responsible cell, moved onto the object."""
    box = (41.5, 28.0, 53.5, 44.0)  # center 47.5, 36: column 5, row 4; 12 x 16 is an anchor
    outputs = torch.zeros(1, COUNT, 5 + CLASSES, dtype=torch.float64)
    outputs[..., 4] = -9.0
    right = 4 * 12 + 5
    neighbour = right + 1
    outputs[0, neighbour, 0] = -9.0  # to the left of its cell, which begins at 48
    covered = decode(outputs, ANCHORS, STRIDES, SIZES)[0, neighbour].tolist()
    assert formulas.iou(covered, box) > 0.7
    outputs[0, neighbour, 4] = 9.0
    outputs.requires_grad_()
    loss = computed(outputs, [([box], [1])])["loss_obj"]
    loss.backward()
    assert outputs.grad[0, neighbour, 4] == 0
    assert outputs.grad[0, right, 4] < 0
    assert (outputs.grad[0, :, 4] > 0).sum() > COUNT - 20


def test_a_batch_without_objects_has_gradients_for_objectness_alone():
    outputs = random_outputs(0).requires_grad_()
    found = computed(outputs, [([], []), ([], [])])
    sum(found.values()).backward()
    assert found["loss_box_reg"] == found["loss_cls"] == 0
    assert (outputs.grad[..., 4] > 0).all()
    assert not outputs.grad[..., :4].any() and not outputs.grad[..., 5:].any()


def test_the_loss_falls_to_where_boxes_are_the_objects():
    """Gradient descent on the outputs themselves, without a network."""
    boxes, labels = [(8.0, 8.0, 40.0, 30.0), (50.0, 20.0, 90.0, 60.0)], [0, 2]
    outputs = torch.zeros(1, COUNT, 5 + CLASSES, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        sum(computed(outputs, [(boxes, labels)]).values()).backward()
        optimizer.step()
    found = decode(outputs.detach(), ANCHORS, STRIDES, SIZES)[0].tolist()
    owners = formulas.assigned(boxes, ORIGINAL, STRIDES, SIZES)
    for place, number in owners.items():
        assert formulas.iou(found[place], boxes[number]) > 0.9
        assert outputs[0, place, 5:].argmax() == labels[number]
    sure = (outputs[0, :, 4] > 0).nonzero().flatten().tolist()
    assert sure == sorted(owners)
