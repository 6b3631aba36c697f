"""YOLOv4's training images: colours changed, mirrored, resized or put into a mosaic; for both engines."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as colours

from lowbit.detection.with_torchvision.pyramid import mirrored, resized
from lowbit.detection.yolov4.mosaic import Sample, mosaic, resize

_HUE = 0.1  # largest turn of the hue, in turns (the published configuration's hue)
_FACTOR = 1.5  # largest change of saturation and brightness (saturation, exposure)


@dataclass(frozen=True)
class TrainingImages:
    """How a training image is made; all draws are from torch's global generator.

    Attributes:
        sizes: shorter sides of an image and sides of a mosaic, pixels, one drawn each time; empty: an
            image stays as it is, and there are no mosaics.
        longest: largest longer side of an image.
        flip: mirror half of the images.
        mosaic: share of mosaics.
        color_jitter: change the colours.
    """

    sizes: tuple[int, ...]
    longest: int
    flip: bool
    mosaic: float
    color_jitter: bool

    def __call__(self, load: Callable[[int], Sample], place: int, count: int) -> Sample:
        """Return a training image made of the one at `place`, and in a mosaic of three more of `count`.

        Args:
            load: returns the image at a place.
            place: the image.
            count: number of images.
        """
        side = self.sizes[int(torch.randint(len(self.sizes), ()))] if self.sizes else None
        if side is not None and float(torch.rand(())) < self.mosaic:
            others = torch.randint(count, (3,)).tolist()
            return mosaic([self._changed(load(i)) for i in (place, *others)], side)
        sample = self._changed(load(place))
        if side is None:
            return sample
        return resize(sample, resized(*sample.pixels.shape[1:], shorter=side, longest=self.longest))

    def _changed(self, sample: Sample) -> Sample:
        if self.color_jitter:
            sample = sample._replace(pixels=_recoloured(sample.pixels))
        if self.flip and float(torch.rand(())) < 0.5:
            sample = Sample(*mirrored(sample.pixels, sample.boxes), sample.labels)
        return sample


def _recoloured(pixels: Tensor) -> Tensor:
    hue = float(torch.empty(()).uniform_(-_HUE, _HUE))
    pixels = colours.adjust_hue(pixels, hue)
    pixels = colours.adjust_saturation(pixels, _factor())
    return colours.adjust_brightness(pixels, _factor())


def _factor() -> float:
    """Draw a factor of 1 to 1.5, or one over it."""
    factor = float(torch.empty(()).uniform_(1, _FACTOR))
    return factor if float(torch.rand(())) < 0.5 else 1 / factor
