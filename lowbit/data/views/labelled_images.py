"""The labelled images of a split, decoded and viewed when they are asked for, batch by batch.

A set whose images share one small size lies in memory as bytes; all others stay in their files
(`lowbit.data.views.image_files`). What asks for batches cannot tell, and needs memory for a batch alone.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lowbit.data.image_sets.registry import Split, Triple, check_split, load, locate
from lowbit.data.views.augment import Augment, normalize
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
    """The k-th random-resized crop and flip of every image, by `seed`.

    Of images in files it is a function of (seed, k, image id) alone: neither batches, nor workers,
    nor a restart change a pixel. Of images in memory it is drawn batch by batch, from one stream a
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
        classes: the names; a label is a place in them.
        labels: int64 (N,).
        ids: of the images in their set, int64 (N,), rising.
        frames: of each, where they are videos; None: they are images.
    """

    frames: int | None
    name: str
    split: str
    split_sha256: str
    classes: tuple[str, ...]
    labels: Tensor
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

        Of F frames each (`lowbit.data.image_sets.video_folder`), they are (B, F, 3, size, size).

        Args:
            view: what of each image.
            batch_size: images at a time; the last batch holds what is left over.
            device: where the views go.
            places: which images, in which order, each 0 .. len - 1; default all. A sequence of
                tensors is the batches as they are, whatever `batch_size`.
            workers: processes that decode files; 0: none, None: one a core, 8 at most.
            generator: what crops of images in memory are drawn from, for one who keeps its state;
                default the stream of the view's (seed, k).
        """


def open_images(name: str, split: str, *, root: str | os.PathLike | None = None) -> Images:
    """Open a split, in memory where its images are small and of one size; else nothing is decoded.

    Args:
        name: an image set, as `load` takes it.
        split: "train", "val", "test" or "trainval".
        root: folder of the sets; default `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: the set's files are not there; the message says how to get them.
        ValueError: the set or split is unknown, or its files are not as they should be.

    Example:
        >>> images = open_images("digits", "test")
        >>> view = Center(size=32, resize=36)
        >>> [len(batch) for batch in images.batches(view, batch_size=300, device="cpu")]
        [300, 240]
    """
    from lowbit.data.views.image_files import ImagesInFiles, VideosInFiles

    check_split(name, split)
    spec = locate(name, root=root)
    if spec.frames is not None:
        return VideosInFiles(spec, split)
    if spec.size is None:
        return ImagesInFiles(spec, split)
    return ImagesInMemory(load(name, split, root=root), mean=spec.mean, std=spec.std)


class ImagesInMemory:
    """Images as bytes, on each device that asked for them: `Images`."""

    frames = None

    def __init__(self, split: Split, *, mean: Triple, std: Triple) -> None:
        self.name, self.split, self.split_sha256 = split.name, split.split, split.split_sha256
        self.classes, self.labels, self.ids = split.classes, split.labels, split.ids
        self._mean, self._std = mean, std
        self._bytes = {torch.device("cpu"): split.images}  # (N, 3, H, W)

    def __len__(self) -> int:
        return len(self.labels)

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
        images = self._on(torch.device(device))
        if isinstance(view, Crop):
            augment = _augment(view, self._mean, self._std)
            generator = generator or _stream(view)
        for batch in rows(places, len(self), batch_size):
            chosen = images[batch.to(images.device)]
            if isinstance(view, Crop):
                yield augment(chosen, generator)
            else:
                yield normalize(_central(chosen, view), self._mean, self._std)

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._bytes:
            self._bytes[device] = self._bytes[torch.device("cpu")].to(device)
        return self._bytes[device]


def rows(places: Tensor | Sequence[Tensor] | None, count: int, batch_size: int) -> Sequence[Tensor]:
    """Return the places of each batch, as `Images.batches` is asked for them."""
    if places is None:
        places = torch.arange(count)
    return places.split(batch_size) if isinstance(places, Tensor) else places


def _central(images: Tensor, view: Center) -> Tensor:
    """Resize square bytes (N, 3, H, H) where sizes differ, and crop the centre."""
    if images.shape[-2:] != (view.resize, view.resize):
        large = F.interpolate(
            images.float(), size=(view.resize,) * 2, mode=view.interpolation, antialias=True
        )
        # Back to bytes, as an image library would hand them on.
        images = large.round_().clamp_(0, 255).to(torch.uint8)
    start = (view.resize - view.size) // 2
    return images[..., start : start + view.size, start : start + view.size]


def _augment(view: Crop, mean: Triple, std: Triple) -> Augment:
    return Augment(
        view.size,
        mean=mean,
        std=std,
        scale=view.scale,
        ratio=view.ratio,
        flip=view.flip,
        jitter_p=0,
        gray_p=0,
        interpolation=view.interpolation,
    )


def _stream(view: Crop) -> Generator:
    digest = hashlib.sha256(f"{view.seed}/view {view.k}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
