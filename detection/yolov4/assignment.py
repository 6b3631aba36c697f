"""Which predictions of YOLOv4 are responsible for which objects.

An object belongs to the cell that its center is in, at every anchor whose shape overlaps its own by
more than a threshold, and at the best anchor in any case (YOLOv4, Sec. 4.3: several anchors for one
object). Two objects may want the same anchor of the same cell: the one whose shape fits better has it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.detection.yolov4.anchors import shape_iou

THRESHOLD = 0.213  # IoU of shapes (the published configuration's iou_thresh)


def assign(
    boxes: Tensor, anchors: Tensor, strides: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Assign an image's objects to predictions.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, pixels.
        anchors: (levels * A, 2) width and height, pixels, level by level.
        strides: of the levels, pixels.
        sizes: rows and columns of the levels.

    Returns:
        (positives,) places of predictions, increasing, in the order level, anchor, row, column; and
        (positives,) the object of each.
    """
    if not len(boxes):
        none = torch.zeros(0, dtype=torch.int64, device=boxes.device)
        return none, none
    per_level = len(anchors) // len(strides)
    fit = shape_iou(boxes[:, 2:] - boxes[:, :2], anchors)  # (n, levels * A)
    chosen = fit > THRESHOLD
    chosen[torch.arange(len(boxes), device=boxes.device), fit.argmax(1)] = True
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    places, first = [], 0
    for stride, (rows, columns) in zip(strides, sizes, strict=True):
        column = (centers[:, 0] / stride).long().clamp(0, columns - 1)
        row = (centers[:, 1] / stride).long().clamp(0, rows - 1)
        for _ in range(per_level):
            places.append(first + row * columns + column)
            first += rows * columns
    place, object_ = torch.stack(places, 1)[chosen], chosen.nonzero()[:, 0]
    # By place, and at one place the best fit first; of equal ones the first object.
    order = fit[chosen].argsort(descending=True, stable=True)
    order = order[place[order].argsort(stable=True)]
    place, object_ = place[order], object_[order]
    kept = torch.ones_like(place, dtype=torch.bool)
    kept[1:] = place[1:] != place[:-1]
    return place[kept], object_[kept]
