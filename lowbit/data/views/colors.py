"""Colour operations on a batch in 0..1, with per-sample factors (as torchvision defines them)."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's constants
_HUE = 3  # index of hue in brightness, contrast, saturation, hue
# Every order of the four, (24, 4): which comes first, second, ...
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def jitter_factors(
    strengths: tuple[float, float, float, float], draws: list[Tensor], jittered: Tensor
) -> list[Tensor]:
    """Turn four draws (N,) in 0..1 into brightness, contrast, saturation and hue factors (N,)."""
    factors = []
    for strength, u in zip(strengths[:3], draws[:3], strict=True):
        low = max(0.0, 1 - strength)
        factors.append(torch.where(jittered, low + u * (1 + strength - low), 1.0))
    factors.append(torch.where(jittered, (2 * draws[3] - 1) * strengths[3], 0.0))
    return factors


def color_jitter(
    x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Jitter x (N, 3, H, W) in 0..1 in place by torchvision's factors, one (N,) for each kind.

    The order is the same for every sample.
    """
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in (brightness, contrast, saturation)
    )
    x.mul_(brightness).clamp_(0, 1)
    mean = to_gray(x).mean(dim=(-2, -1), keepdim=True)  # (N, 1, 1, 1)
    x.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 1)
    gray = to_gray(x).mul_(1 - saturation)  # (N, 1, H, W)
    x.mul_(saturation).add_(gray).clamp_(0, 1)
    return adjust_hue(x, hue)


def color_jitter_in_order(x: Tensor, factors: list[Tensor], draw: Tensor) -> Tensor:
    """Jitter x (N, 3, H, W) in 0..1 in place, each sample in its own order.

    Args:
        x: the images.
        factors: brightness, contrast, saturation and hue, each (N,).
        draw: (N,) uniform in 0..1; it picks one of the 24 orders.

    There are four rounds. A round computes for each sample one of f x, f x + (1 - f) mean(gray(x)),
    f x + (1 - f) gray(x) and a hue rotation; the first three are one formula with coefficients that
    may be 0, so the whole batch is computed at once.
    """
    turn_hue = turn_counted if x.device.type == "cpu" else turn_masked
    orders = _ORDERS.to(x.device)[(draw * len(_ORDERS)).long().clamp_(max=len(_ORDERS) - 1)]
    scale, hue = torch.stack([*factors[:3], torch.ones_like(draw)], dim=1), factors[_HUE]  # (N, 4)
    rest = 1 - scale
    zero = torch.zeros_like(draw)
    from_mean = torch.stack([zero, rest[:, 1], zero, zero], dim=1)
    from_gray = torch.stack([zero, zero, rest[:, 2], zero], dim=1)
    for turn in orders.split(1, dim=1):  # (N, 1)
        f, of_mean, of_gray = (
            c.gather(1, turn)[:, :, None, None] for c in (scale, from_mean, from_gray)
        )
        gray = to_gray(x)  # (N, 1, H, W)
        mean = gray.mean(dim=(-2, -1), keepdim=True)
        x.mul_(f).add_(gray.mul_(of_gray).addcmul_(of_mean, mean)).clamp_(0, 1)
        turn_hue(x, hue, turn[:, 0] == _HUE)
    return x


def turn_counted(x: Tensor, hue: Tensor, chosen: Tensor) -> None:
    """Rotate the hue of the chosen samples in place; the host waits for their number."""
    rows = (chosen & (hue != 0)).nonzero()[:, 0]
    x[rows] = adjust_hue(x[rows], hue[rows])


def turn_masked(x: Tensor, hue: Tensor, chosen: Tensor) -> None:
    """Rotate the hue of the chosen samples in place, computing all samples without waiting."""
    turned = adjust_hue(x.clone(), hue)
    x.copy_(torch.where(chosen[:, None, None, None], turned, x))


def to_gray(x: Tensor) -> Tensor:
    """Return the luma of x (N, 3, H, W), (N, 1, H, W)."""
    r, g, b = x.split(1, dim=1)
    return (r * _GRAY[0]).add_(g, alpha=_GRAY[1]).add_(b, alpha=_GRAY[2])


def adjust_hue(x: Tensor, hue: Tensor) -> Tensor:
    """Turn the hue of x (N, 3, H, W) in 0..1 by `hue` (N,) turns, in place.

    In HSV a rotation keeps the smallest channel and the chroma c = max - min. With 6 h in
    0..6, each channel is min + c * ramp(6 h), where ramp is 1 within 1 of the channel's own hue, 0
    beyond 2, and linear between: torchvision's `adjust_hue` without converting to HSV and back.
    """
    largest, least = x.amax(dim=1), x.amin(dim=1)  # (N, H, W)
    c = largest - least
    divisor = torch.where(c > 0, c, 1.0)
    r, g, b = (largest[:, None] - x).div_(divisor[:, None]).unbind(1)  # 0 at the maximum
    # 6 h for a red, a green or a blue maximum, the first of them at ties. The steps round where
    # torchvision rounds, so that results agree to 1e-6.
    h = torch.where(r == 0, b - g, torch.where(g == 0, (r + 2).sub_(b), (g + 4).sub_(r)))
    h.mul_(1 / 6).add_(1).remainder_(1).add_(hue[:, None, None]).remainder_(1).mul_(6)
    ramps = ((h - 3).abs_().sub_(1), 2 - (h - 2).abs_(), 2 - (h - 4).abs_())
    for channel, ramp in zip(x.unbind(1), ramps, strict=True):
        torch.addcmul(least, ramp.clamp_(0, 1), c, out=channel)
    return x


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each sample of x (N, 3, H, W) with its own sigma (N,), in pixels; edges are mirrored.

    The kernel spans a tenth of the image, an odd number of pixels (SimCLR's rule).
    """
    n, channels, height, width = x.shape
    radius = max(1, round(0.1 * height) // 2)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = x.reshape(1, n * channels, height, width)
    flat = F.pad(flat, (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return flat.reshape(n, channels, height, width)
