"""Views of labelled images, and the interface that yields them in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from lowbit.data.views.crops import Interpolation


@dataclass(frozen=True)
class Center:
    """The central view: the shorter side to `resize` pixels, then the central `size` of both.

    SSQL evaluates at 256 and 224 (SPEC A.8), CIFAR at 224 and 224, or at 36 and 32.
    """

    size: int
    resize: int
    interpolation: Interpolation = "bicubic"


@dataclass(frozen=True)
class Crop:
    """The k-th random-resized crop and flip of every image, determined by `seed`.

    For images in files it is a function of (seed, k, image id) alone: neither batches, nor workers,
    nor a restart change a pixel. For images in memory it is drawn batch by batch, from one stream per
    (seed, k).
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    seed: int
    k: int
    interpolation: Interpolation = "bilinear"


class Images(Protocol):
    """The images of a split and their labels.

    Attributes:
        name, split, split_sha256: which images.
        classes: the names; a label is an index into them.
        labels: int64 (N,).
        targets: whether a sample has a class, bool (N, C), of sets whose samples may have several; else
            None.
        ids: of the images in their set, int64 (N,), increasing.
        frames: number per video; None: the samples are images.
    """

    frames: int | None
    name: str
    split: str
    split_sha256: str
    classes: tuple[str, ...]
    labels: Tensor
    targets: Tensor | None
    ids: Tensor

    def __len__(self) -> int: ...

    def batches(
        self,
        view: Center | Crop,
        *,
        batch_size: int,
        device: torch.device | str,
        places: Tensor | Sequence[Tensor] | None = None,
        workers: int | None = None,
        generator: Generator | None = None,
    ) -> Iterator[Tensor]:
        """Yield views, float (B, 3, size, size), normalized, on the device.

        For videos of F frames (`lowbit.data.image_sets.video_folder`) they are (B, F, 3, size, size).

        Args:
            view: the view of each image.
            batch_size: images at a time; the last batch holds the remainder.
            device: of the views.
            places: indices of the images in order, each 0 .. len - 1; default all. A sequence of
                tensors gives the batches themselves, ignoring `batch_size`.
            workers: processes that decode files; 0: none, None: one per core, 8 at most.
            generator: source of crops of images in memory, for callers that save its state;
                default the stream of the view's (seed, k).
        """


def rows(places: Tensor | Sequence[Tensor] | None, count: int, batch_size: int) -> Sequence[Tensor]:
    """Return the indices of each batch for the arguments of `Images.batches`."""
    if places is None:
        places = torch.arange(count)
    return places.split(batch_size) if isinstance(places, Tensor) else places
