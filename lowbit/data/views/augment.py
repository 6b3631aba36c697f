"""Batched augmentation on the images' device with per-sample parameters.

One call takes uint8 images to normalized floats: crop and flip, then colour jitter, gray and blur
with torchvision's definition of their factors. Everything is computed in float: no step rounds to
bytes, as steps on Pillow images do.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from lowbit.data.image_sets.spec import Triple
from lowbit.data.views.colors import (
    color_jitter,
    color_jitter_in_order,
    gaussian_blur,
    jitter_factors,
    to_gray,
)
from lowbit.data.views.crops import CROP_ATTEMPTS, Interpolation, boxes, crop

JitterOrder = Literal["fixed", "random"]

_BLUR_SIGMA = (0.1, 2.0)  # SimCLR
CHUNK_FLOATS = 2**19
"""On a CPU, 2 MiB of images at a time go through all steps, so that they stay in the cache."""


class Augment:
    """Draw one view of every image: the SSL augmentation of SSQL (official code).

    Args:
        size: output height and width, in pixels.
        scale: range of the crop's area, as a share of the image's.
        ratio: range of the crop's width over its height.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation and hue strengths, as torchvision's `ColorJitter`.
        jitter_p: probability that a sample is jittered at all.
        jitter_order: "random" draws for each sample one of the 24 orders of the four operations, all
            equally likely, as `ColorJitter` does for each image; "fixed" is always brightness,
            contrast, saturation, hue, and a quarter less work for the whole view.
        gray_p: probability that a sample turns gray.
        blur_p: probability of a Gaussian blur with sigma in [0.1, 2] pixels.
        interpolation: of the crop. "bilinear" is torchvision's default, and official SSQL's;
            "bicubic" is CQ's for CIFAR.
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
        jitter_order: JitterOrder = "fixed",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.size = size
        self.mean, self.std = mean, std
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.jitter, self.jitter_p = jitter, jitter_p
        self.gray_p, self.blur_p = gray_p, blur_p
        self.jitter_order, self.interpolation = jitter_order, interpolation

    @property
    def draws(self) -> int:
        """Number of uniforms a view uses besides those of its crop box."""
        return 10 if self.jitter_order == "random" else 9

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Augment uint8 images (N, 3, H, W) to floats (N, 3, size, size)."""
        return self.view(images, *self.draw(len(images), generator))

    def draw(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw what decides the views of N = `count` images: uniforms (N, 4, attempts) and (N, `draws`)."""
        device = generator.device
        tries = torch.rand((4, count, CROP_ATTEMPTS), generator=generator, device=device)
        uniform = torch.rand((count, self.draws), generator=generator, device=device)
        return tries.transpose(0, 1), uniform

    def view(self, images: Tensor, tries: Tensor, uniform: Tensor) -> Tensor:
        """Augment uint8 images (N, 3, H, W) to floats (N, 3, size, size), by what `draw` returned."""
        tries, uniform = tries.to(images.device), uniform.to(images.device)
        places = boxes(tries.transpose(0, 1), *images.shape[2:], scale=self.scale, ratio=self.ratio)
        return self._by_chunks(self._crop_and_finish, images, places, uniform)

    def finish(self, crops: Tensor, uniform: Tensor) -> Tensor:
        """Apply everything after crop and flip to uint8 crops (N, 3, size, size), by `draws` uniforms each."""
        return self._by_chunks(self._finish_bytes, crops, uniform)

    def _by_chunks(self, step: Callable[..., Tensor], images: Tensor, *draws: Tensor) -> Tensor:
        if images.device.type != "cpu":
            return step(images, *draws)
        chunk = max(1, CHUNK_FLOATS // (3 * self.size**2))
        parts = zip(*(t.split(chunk) for t in (images, *draws)), strict=True)
        return torch.cat([step(*part) for part in parts])

    def _crop_and_finish(self, images: Tensor, places: Tensor, uniform: Tensor) -> Tensor:
        flipped = uniform[:, 0] < self.flip
        x = images.float().div_(255)
        x = crop(x, places, flipped, self.size, interpolation=self.interpolation)
        return self._finish(x, uniform)

    def _finish_bytes(self, crops: Tensor, uniform: Tensor) -> Tensor:
        return self._finish(crops.float().div_(255), uniform)

    def _finish(self, x: Tensor, uniform: Tensor) -> Tensor:
        _, jitter, *factors, gray, blur, sigma = uniform[:, :9].unbind(1)  # each (N,)
        if self.jitter_p > 0 and any(self.jitter):
            factors = jitter_factors(self.jitter, factors, jitter < self.jitter_p)
            if self.jitter_order == "random":
                x = color_jitter_in_order(x, factors, uniform[:, 9])
            else:
                x = color_jitter(x, *factors)
        if self.gray_p > 0:
            x.lerp_(to_gray(x), (gray < self.gray_p).to(x.dtype)[:, None, None, None])
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
