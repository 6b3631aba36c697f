"""Choose detections among the predictions of an image: threshold, class-wise NMS, the best ones."""

from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

_CANDIDATES = 3000  # best predictions that go into NMS


@dataclass
class Selection:
    """What counts as a detection.

    Attributes:
        score: least score, objectness times class; low, for average precision sees all of them.
        iou: overlap with a better box of the same class from which a box is dropped.
        count: most detections in an image.
    """

    score: float = 0.005
    iou: float = 0.45
    count: int = 100


def select_detections(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], selection: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the detections of an image, best first: boxes (n, 4), scores (n,) and labels (n,).

    Args:
        boxes: (P, 4) x1 y1 x2 y2, pixels.
        scores: (P, K) of every class.
        size: the image's height and width, to which boxes are clipped.
        selection: what counts.
    """
    classes = scores.shape[1]
    scores, order = scores.flatten().sort(descending=True, stable=True)
    kept = int((scores[:_CANDIDATES] > selection.score).sum())
    scores, order = scores[:kept], order[:kept]
    labels = order % classes
    boxes = clip_boxes_to_image(boxes[order // classes], size)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
    best = batched_nms(boxes, scores, labels, selection.iou)[: selection.count]
    return boxes[best], scores[best], labels[best]
