"""The nine anchors of YOLOv4: the original's, or k-means of a set's boxes (YOLOv2, Sec. 2)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.detection.with_torchvision.pyramid import resized
from lowbit.detection.yolov4.settings import ANCHORS

# Width and height in pixels, three for each of the strides 8, 16 and 32 (the published configuration).
ORIGINAL = (
    (12.0, 16.0),
    (19.0, 36.0),
    (40.0, 28.0),
    (36.0, 75.0),
    (76.0, 55.0),
    (72.0, 146.0),
    (142.0, 110.0),
    (192.0, 243.0),
    (459.0, 401.0),
)
_ROUNDS = 300  # k-means has settled long before


def shape_iou(shapes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU of boxes (n, 2) and anchors (k, 2), width and height, about one center: (n, k)."""
    overlap = torch.minimum(shapes[:, None], anchors[None]).prod(-1)
    return overlap / (shapes.prod(-1)[:, None] + anchors.prod(-1)[None] - overlap)


def kmeans_anchors(shapes: Tensor) -> Tensor:
    """Cluster boxes by 1 - IoU of their shapes, without any random number.

    The first centers are the boxes at nine quantiles of the area; a center without boxes stays.

    Args:
        shapes: (n, 2) width and height, pixels.

    Returns:
        (9, 2) by area, float32.

    Raises:
        ValueError: there are fewer than nine different shapes.
    """
    shapes = shapes.double()
    distinct = torch.unique(shapes, dim=0)
    if len(distinct) < ANCHORS:
        raise ValueError(
            f"the training boxes have {len(distinct)} different shapes, too few for nine anchors; "
            "nothing was trained. Set anchors to original, or list nine."
        )
    distinct = distinct[distinct.prod(1).argsort(stable=True)]
    quantiles = (torch.arange(ANCHORS, dtype=torch.float64) + 0.5) / ANCHORS
    centers = distinct[(quantiles * len(distinct)).long()]
    nearest = None
    for _ in range(_ROUNDS):
        found = shape_iou(shapes, centers).argmax(1)
        if nearest is not None and torch.equal(found, nearest):
            break
        nearest = found
        for k in range(ANCHORS):
            if (nearest == k).any():
                centers[k] = shapes[nearest == k].mean(0)
    return centers[centers.prod(1).argsort(stable=True)].float()


def box_shapes(
    images: Iterable[tuple[int, int, Tensor]], *, shorter: int | None, longest: int
) -> Tensor:
    """Return width and height of all boxes once their images are resized, (n, 2).

    Args:
        images: height, width and boxes (n, 4), x1 y1 x2 y2.
        shorter, longest: sides of a resized image; shorter None: images stay as they are.
    """
    found = [torch.zeros(0, 2)]
    for height, width, boxes in images:
        after = (height, width)
        if shorter is not None:
            after = resized(height, width, shorter=shorter, longest=longest)
        scale = torch.tensor([after[1] / width, after[0] / height])
        found.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    return torch.cat(found)


def describe_anchors(detector: nn.Module) -> dict[str, Any]:
    """Return a YOLOv4 detector's anchors for its result; nothing of other detectors."""
    anchors = getattr(getattr(detector, "head", None), "anchors", None)
    if not isinstance(anchors, Tensor):
        return {}
    return {"anchors": [[round(side, 2) for side in shape] for shape in anchors.tolist()]}
