"""A mosaic: one training image of parts of four (YOLOv4, Sec. 3.3), with what is left of their boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_MARGIN = 0.2  # of the side: the parts meet between it and 1 less it
_ZOOM = 1.5  # most that an image is enlarged beyond what fills its part
_VISIBLE = 0.1  # share of a box that must be left of it
_LEAST = 2.0  # pixels of its shorter side that must be left


class Sample(NamedTuple):
    """A training image.

    Attributes:
        pixels: uint8 (3, H, W), RGB.
        boxes: float32 (n, 4) x1 y1 x2 y2, pixels.
        labels: int64 (n,).
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor


def mosaic(samples: Sequence[Sample], side: int) -> Sample:
    """Put random parts of four images around a random point of a square; draws from torch's generator."""
    low, high = round(_MARGIN * side), round((1 - _MARGIN) * side)
    x, y = (int(torch.randint(low, high + 1, ())) for _ in range(2))
    pixels = torch.empty(3, side, side, dtype=torch.uint8)
    boxes, labels = [], []
    fields = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    for sample, (left, top, right, bottom) in zip(samples, fields, strict=True):
        part = cut(sample, bottom - top, right - left)
        pixels[:, top:bottom, left:right] = part.pixels
        boxes.append(part.boxes + torch.tensor([left, top, left, top]))
        labels.append(part.labels)
    return Sample(pixels, torch.cat(boxes), torch.cat(labels))


def cut(sample: Sample, height: int, width: int) -> Sample:
    """Return a random part of a resized image, that size; boxes of which little is left are dropped."""
    rows, columns = sample.pixels.shape[1:]
    zoom = float(1 + (_ZOOM - 1) * torch.rand(()))
    scale = max(height / rows, width / columns) * zoom
    size = (max(height, round(scale * rows)), max(width, round(scale * columns)))
    top = int(torch.randint(size[0] - height + 1, ()))
    left = int(torch.randint(size[1] - width + 1, ()))
    resized = resize(sample, size)
    return window(resized, top, left, height, width)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Return an image of another height and width, averaging where it shrinks."""
    rows, columns = sample.pixels.shape[1:]
    if size == (rows, columns):
        return sample
    pixels = F.interpolate(sample.pixels[None].float(), size, mode="bilinear", antialias=True)[0]
    scale = torch.tensor([size[1] / columns, size[0] / rows]).repeat(2)
    return Sample(pixels.round().clamp(0, 255).to(torch.uint8), sample.boxes * scale, sample.labels)


def window(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Return a window of an image, with its boxes clipped; those of which little is left are dropped."""
    moved = sample.boxes - torch.tensor([left, top, left, top])
    edges = torch.tensor([width, height, width, height])
    boxes = torch.minimum(moved.clamp(min=0), edges)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    whole = (moved[:, 2:] - moved[:, :2]).prod(1)
    kept = (sides.prod(1) >= _VISIBLE * whole) & (sides.amin(1) >= _LEAST)
    pixels = sample.pixels[:, top : top + height, left : left + width]
    return Sample(pixels, boxes[kept], sample.labels[kept])
