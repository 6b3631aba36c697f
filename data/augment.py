"""Batched augmentation on the images' device, every parameter drawn per sample.

One call takes uint8 images to normalized floats: crop and flip by one `grid_sample`, then colour
jitter, gray and blur with torchvision's meaning of their factors. Two differences from
`torchvision.transforms.v2`: the colour operations always come in the order brightness, contrast,
saturation, hue, and a crop larger than the output is not anti-aliased.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from data.sets import Triple

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's constants
_CROP_ATTEMPTS = 10  # torchvision's RandomResizedCrop tries ten boxes, then takes the centre
_BLUR_SIGMA = (0.1, 2.0)  # SimCLR
_CHUNK_FLOATS = (
    2**18
)  # on a CPU, images of 1 MiB go through all steps before the next: they stay cached


class Augment:
    """Draw one view of every image: the SSL augmentation of SSQL (official code).

    Args:
        size: output height and width, in pixels.
        scale: range of the crop's area, as a share of the image's.
        ratio: range of the crop's width over its height.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation and hue strengths, as torchvision's `ColorJitter`.
        jitter_p: probability that a sample is jittered at all.
        gray_p: probability that a sample turns gray.
        blur_p: probability of a Gaussian blur with sigma in [0.1, 2] pixels.
        mean, std: normalization per channel, in units of 0..1.

    The object holds no state: all randomness comes from the generator of the call, and what is
    drawn depends on the batch size alone.

    Example:
        >>> augment = Augment(32, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> images = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
        >>> augment(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        size: int,
        *,
        mean: Triple,
        std: Triple,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_p: float = 0.8,
        gray_p: float = 0.2,
        blur_p: float = 0.0,
    ) -> None:
        self.size = size
        self.mean, self.std = mean, std
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.jitter, self.jitter_p = jitter, jitter_p
        self.gray_p, self.blur_p = gray_p, blur_p

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Augment uint8 images (N, 3, H, W) to floats (N, 3, size, size)."""
        draws = self._draw(images, generator)
        if images.device.type == "cpu":
            chunk = max(1, _CHUNK_FLOATS // (3 * self.size**2))
        else:
            chunk = len(images)
        parts = zip(images.split(chunk), *(draw.split(chunk) for draw in draws), strict=True)
        return torch.cat([self._apply(*part) for part in parts])

    def _draw(self, images: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """Draw every parameter: boxes (N, 4), and rows (N, 9) of uniforms for all the rest."""
        boxes = draw_boxes(images.shape, self.scale, self.ratio, generator)
        uniform = _uniform(len(images), 9, generator=generator)
        return boxes.to(images.device), uniform.to(images.device)

    def _apply(self, images: Tensor, boxes: Tensor, uniform: Tensor) -> Tensor:
        flip, jitter, *factors, gray, blur, sigma = uniform.unbind(1)  # each (N,)
        x = crop(images.float().div_(255), boxes, flip < self.flip, self.size)
        if self.jitter_p > 0 and any(self.jitter):
            x = color_jitter(x, *_jitter_factors(self.jitter, factors, jitter < self.jitter_p))
        if self.gray_p > 0:
            x.lerp_(_gray(x), (gray < self.gray_p).to(x.dtype)[:, None, None, None])
        if self.blur_p > 0:
            low, high = _BLUR_SIGMA
            blurred = gaussian_blur(x, sigma * (high - low) + low)
            x = torch.where((blur < self.blur_p)[:, None, None, None], blurred, x)
        return _normalize_(x, self.mean, self.std)


def normalize(images: Tensor, mean: Triple, std: Triple) -> Tensor:
    """Turn uint8 images (N, 3, H, W) into floats in units of the data set's deviation."""
    return _normalize_(images.float().div_(255), mean, std)


def _normalize_(x: Tensor, mean: Triple, std: Triple) -> Tensor:
    mean, std = (x.new_tensor(values)[:, None, None] for values in (mean, std))
    return x.sub_(mean).div_(std)


def _uniform(*shape: int, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def draw_boxes(
    shape: torch.Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: Generator,
) -> Tensor:
    """Draw a crop box per sample, as torchvision's `RandomResizedCrop.get_params`.

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform in `ratio`; of
    ten attempts the first that fits is taken, else the largest central box within `ratio`.

    Returns:
        int64 (N, 4): top, left, height, width, in pixels.
    """
    n, _, image_h, image_w = shape
    u = _uniform(4, n, _CROP_ATTEMPTS, generator=generator)  # area, ratio, top, left
    area = (u[0] * (scale[1] - scale[0]) + scale[0]) * (image_h * image_w)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(u[1] * (high - low) + low)
    w = (area * aspect).sqrt_().round_()
    h = (area / aspect).sqrt_().round_()
    fits = (w > 0) & (w <= image_w) & (h > 0) & (h <= image_h)
    top = (u[2] * (image_h - h + 1)).floor_()
    left = (u[3] * (image_w - w + 1)).floor_()
    boxes = torch.stack([top, left, h, w], dim=-1)  # (N, attempts, 4)
    first = fits.to(torch.uint8).argmax(dim=1)
    chosen = boxes.gather(1, first[:, None, None].expand(-1, 1, 4)).squeeze(1)
    central = boxes.new_tensor(_central_box(image_h, image_w, ratio))
    return torch.where(fits.any(dim=1, keepdim=True), chosen, central).long()


def _central_box(image_h: int, image_w: int, ratio: tuple[float, float]) -> tuple[int, ...]:
    h, w = image_h, image_w
    if w / h < ratio[0]:
        h = round(w / ratio[0])
    elif w / h > ratio[1]:
        w = round(h * ratio[1])
    return (image_h - h) // 2, (image_w - w) // 2, h, w


def crop(x: Tensor, boxes: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Crop `boxes` (N, 4) out of x (N, 3, H, W), enlarge them to `size` and flip where told.

    Equal to cutting each box out and interpolating it bilinearly (align_corners=False): the
    sampling grid is clamped to the box, so that no pixel outside of it is read.
    """
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


def _jitter_factors(
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
    """Jitter x (N, 3, H, W) in 0..1 in place by torchvision's factors, one (N,) for each kind."""
    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in (brightness, contrast, saturation)
    )
    x.mul_(brightness).clamp_(0, 1)
    mean = _gray(x).mean(dim=(-2, -1), keepdim=True)  # (N, 1, 1, 1)
    x.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 1)
    gray = _gray(x).mul_(1 - saturation)  # (N, 1, H, W)
    x.mul_(saturation).add_(gray).clamp_(0, 1)
    return adjust_hue(x, hue)


def _gray(x: Tensor) -> Tensor:
    r, g, b = x.split(1, dim=1)
    return (r * _GRAY[0]).add_(g, alpha=_GRAY[1]).add_(b, alpha=_GRAY[2])


def adjust_hue(x: Tensor, hue: Tensor) -> Tensor:
    """Turn the hue of x (N, 3, H, W) in 0..1 by `hue` (N,) turns, in place.

    In HSV a turn leaves the least channel and the chroma c = max - min as they are. With 6 h in
    0..6, each channel is min + c * ramp(6 h), where ramp is 1 within 1 of the channel's own hue, 0
    beyond 2, and linear between: torchvision's `adjust_hue` without the way there and back.
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
