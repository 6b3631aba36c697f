"""Random resized crops of a batch, with one box per sample."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CROP_ATTEMPTS = 10  # torchvision's RandomResizedCrop tries ten boxes, then takes the centre

Interpolation = Literal["bilinear", "bicubic"]


def boxes(
    u: Tensor,
    image_h: int,
    image_w: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """Turn uniforms (4, N, attempts) into boxes, as torchvision's `RandomResizedCrop.get_params`.

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform in `ratio`; of
    the attempts the first that fits is used, else the largest central box within `ratio`.

    Returns:
        int64 (N, 4): top, left, height, width, in pixels.
    """
    area = (u[0] * (scale[1] - scale[0]) + scale[0]) * (image_h * image_w)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(u[1] * (high - low) + low)
    w = (area * aspect).sqrt_().round_()
    h = (area / aspect).sqrt_().round_()
    fits = (w > 0) & (w <= image_w) & (h > 0) & (h <= image_h)
    top = (u[2] * (image_h - h + 1)).floor_()
    left = (u[3] * (image_w - w + 1)).floor_()
    tried = torch.stack([top, left, h, w], dim=-1)  # (N, attempts, 4)
    first = fits.to(torch.uint8).argmax(dim=1)
    chosen = tried.gather(1, first[:, None, None].expand(-1, 1, 4)).squeeze(1)
    central = tried.new_tensor(central_box(image_h, image_w, ratio))
    return torch.where(fits.any(dim=1, keepdim=True), chosen, central).long()


def central_box(image_h: int, image_w: int, ratio: tuple[float, float]) -> tuple[int, ...]:
    """Return the largest central box within `ratio`: top, left, height, width."""
    h, w = image_h, image_w
    if w / h < ratio[0]:
        h = round(w / ratio[0])
    elif w / h > ratio[1]:
        w = round(h * ratio[1])
    return (image_h - h) // 2, (image_w - w) // 2, h, w


def crop(
    x: Tensor,
    boxes: Tensor,
    flipped: Tensor,
    size: int,
    *,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Crop `boxes` (N, 4) out of x (N, 3, H, W), resize them to `size` and flip the chosen ones.

    Equal to cutting out each box and resizing it as torchvision does: no pixel outside the box is
    read, and a box that shrinks is anti-aliased.
    """
    if interpolation == "bilinear" and max(x.shape[-2:]) <= size:
        return _sample(x, boxes, flipped, size)  # nothing can shrink
    top, left, h, w = boxes[:, :, None, None].to(x.dtype).unbind(1)  # each (N, 1, 1)
    n, channels, image_h, image_w = x.shape
    unit = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size  # (size,)
    mirrored = torch.where(flipped[:, None], 1 - unit, unit)[:, None, :]  # (N, 1, size)
    columns = _weights(left, w, mirrored, image_w, size, interpolation)  # (N, W, size)
    rows = _weights(top, h, unit.expand(n, 1, -1), image_h, size, interpolation)  # (N, H, size)
    wide = torch.bmm(x.reshape(n, channels * image_h, image_w), columns)
    wide = wide.view(n, channels, image_h, size).transpose(1, 2).reshape(n, image_h, -1)
    y = torch.bmm(rows.transpose(1, 2), wide).view(n, size, channels, size).transpose(1, 2)
    return y.contiguous().clamp_(0, 1) if interpolation == "bicubic" else y.contiguous()


def _weights(
    start: Tensor, length: Tensor, unit: Tensor, extent: int, size: int, interpolation: str
) -> Tensor:
    """Return the weight of each of `extent` pixels in each output pixel, (N, extent, size).

    Args:
        start, length: of the box, (N, 1, 1), in pixels.
        unit: centres of the output pixels in the box, (N, 1, size) in 0..1.
        extent, size: numbers of input and output pixels.
        interpolation: the kernel, widened where the box shrinks.
    """
    pixel = torch.arange(extent, device=unit.device, dtype=unit.dtype)[:, None]  # (extent, 1)
    t = ((pixel + 0.5 - start - unit * length) / (length / size).clamp_(min=1)).abs_()
    weights = (1 - t).clamp_(min=0) if interpolation == "bilinear" else _cubic(t)
    weights.mul_((pixel >= start) & (pixel < start + length))
    return weights.div_(weights.sum(dim=1, keepdim=True))


def _cubic(t: Tensor) -> Tensor:
    """Evaluate the cubic kernel with a = -0.5 (Keys 1981; Pillow, torchvision) at t >= 0."""
    near = ((1.5 * t - 2.5) * t).mul_(t).add_(1)
    far = ((2.5 - 0.5 * t) * t).sub_(4).mul_(t).add_(2)
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def _sample(x: Tensor, boxes: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Enlarge boxes bilinearly with one `grid_sample` whose grid is clamped to each box."""
    image_h, image_w = x.shape[-2:]
    top, left, h, w = boxes[:, :, None].to(x.dtype).unbind(1)  # each (N, 1)
    unit = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size  # (size,)
    rows = _within(top, h, unit, image_h)
    columns = _within(left, w, torch.where(flipped[:, None], 1 - unit, unit), image_w)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1
    )
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _within(start: Tensor, length: Tensor, unit: Tensor, extent: int) -> Tensor:
    """Map unit positions (size,) or (N, size) of boxes to grid_sample's -1..1, clamped to them."""
    pixel = torch.clamp(unit * length - 0.5, min=torch.zeros_like(length), max=length - 1) + start
    return (2 * pixel + 1) / extent - 1
