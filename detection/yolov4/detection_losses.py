"""YOLOv4's losses: complete IoU of boxes, binary cross-entropy of objectness and classes.

Each is a sum over predictions and a mean over images, which the published learning rates are for. A
box counts 2 - (its area over the image's), so that small objects are not lost (YOLOv3's weighting).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, complete_box_iou_loss

from lowbit.detection.yolov4.assignment import assign

IGNORED = 0.7  # IoU from which an unassigned prediction is no negative (published: ignore_thresh)


def detection_losses(
    predicted: Tensor,
    boxes: Tensor,
    targets: Sequence[dict[str, Tensor]],
    *,
    anchors: Tensor,
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Return `loss_box_reg`, `loss_obj` and `loss_cls`, each a number.

    Args:
        predicted: (N, P, 5 + K) the head's outputs: box, objectness, classes; float32.
        boxes: (N, P, 4) the boxes they stand for, x1 y1 x2 y2, pixels.
        targets: of each image `boxes` (n, 4) and `labels` (n,).
        anchors, strides, sizes: as in `assign`.
    """
    area = strides[0] ** 2 * sizes[0][0] * sizes[0][1]  # of the image as the network gets it
    box = objectness = classes = predicted.new_zeros(())
    for output, found, target in zip(predicted, boxes, targets, strict=True):
        truth, labels = target["boxes"], target["labels"]
        place, which = assign(truth, anchors, strides, sizes)
        wanted = output.new_zeros(len(output))
        wanted[place] = 1.0
        counted = torch.ones(len(output), dtype=torch.bool, device=output.device)
        if len(truth):
            counted = box_iou(found.detach(), truth).amax(1) <= IGNORED
            counted[place] = True
        missed = F.binary_cross_entropy_with_logits(output[:, 4], wanted, reduction="none")
        objectness = objectness + (missed * counted).sum()
        share = (truth[which, 2:] - truth[which, :2]).prod(1) / area
        box = box + ((2 - share) * complete_box_iou_loss(found[place], truth[which])).sum()
        kind = F.one_hot(labels[which], output.shape[1] - 5).to(output.dtype)
        classes = classes + F.binary_cross_entropy_with_logits(
            output[place, 5:], kind, reduction="sum"
        )
    count = len(targets)
    return {
        "loss_box_reg": box / count,
        "loss_obj": objectness / count,
        "loss_cls": classes / count,
    }
