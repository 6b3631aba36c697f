"""What the network sees of an image: the central view, or an augmented one."""

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from data import Augment, normalization, normalize

if TYPE_CHECKING:
    from transfer.recipe import Recipe


class Views:
    """Turn uint8 images (N, 3, H, W) into normalized floats (N, 3, size, size).

    Args:
        dataset: its constants normalize.
        size: output height and width, pixels.
        resize: side to which `center` enlarges before it crops, pixels; None for `size`.
        scale, ratio, flip: of the augmented view, as `data.Augment`.
    """

    def __init__(
        self,
        dataset: str,
        size: int,
        *,
        resize: int | None = None,
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        self.size, self.resize = size, resize or size
        self.mean, self.std = normalization(dataset)
        self._augment = Augment(
            size,
            mean=self.mean,
            std=self.std,
            scale=scale,
            ratio=ratio,
            flip=flip,
            jitter_p=0,
            gray_p=0,
        )

    @classmethod
    def of(cls, recipe: "Recipe") -> "Views":
        """Make the views a recipe asks for."""
        return cls(
            recipe.dataset,
            recipe.image_size,
            resize=recipe.eval_resize,
            scale=recipe.augmentation.scale,
            ratio=recipe.augmentation.ratio,
            flip=recipe.augmentation.flip,
        )

    def center(self, images: Tensor) -> Tensor:
        """Resize bicubically where sizes differ, crop the centre: SSQL's evaluation (A.8)."""
        if images.shape[-2:] != (self.resize, self.resize):
            large = F.interpolate(
                images.float(), size=(self.resize, self.resize), mode="bicubic", antialias=True
            )
            # Back to bytes, as an image library would hand them on.
            images = large.round_().clamp_(0, 255).to(torch.uint8)
        start = (self.resize - self.size) // 2
        images = images[..., start : start + self.size, start : start + self.size]
        return normalize(images, self.mean, self.std)

    def augmented(self, images: Tensor, generator: Generator) -> Tensor:
        """Draw a random crop and flip of each image."""
        return self._augment(images, generator)
