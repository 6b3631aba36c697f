"""Labelled images of a split, decoded and transformed on demand, batch by batch.

A set whose images share one small size is held in memory as bytes; others stay in their files
(`lowbit.data.views.image_files`). Both have one interface and need memory for only one batch.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lowbit.common.input_files.found_once import once
from lowbit.data.image_sets.registry import locate, read_split
from lowbit.data.image_sets.spec import Split, Triple, check_split, resolve_root
from lowbit.data.views.augment import Augment, normalize
from lowbit.data.views.image_files import ImagesInFiles, VideosInFiles
from lowbit.data.views.view import Center, Crop, Images, rows


def open_images(name: str, split: str, *, root: str | os.PathLike | None = None) -> Images:
    """Open a split: in memory if its images are small and of one size, else without decoding.

    Args:
        name: an image set, as in `load`.
        split: "train", "val", "test" or "trainval".
        root: folder of the sets; default `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: the set's files are missing; the message explains how to get them.
        ValueError: the set or split is unknown, or its files are invalid.

    Example:
        >>> images = open_images("digits", "test")
        >>> view = Center(size=32, resize=36)
        >>> [len(batch) for batch in images.batches(view, batch_size=300, device="cpu")]
        [300, 240]
    """
    check_split(name, split)
    spec = locate(name, root=root)
    if spec.frames is not None:
        return VideosInFiles(spec, split)
    if spec.size is None:
        return ImagesInFiles(spec, split)
    return ImagesInMemory(read_split(spec, split, root=root), mean=spec.mean, std=spec.std)


def missing_images(dataset: str, split: str, *, root: str | None = None) -> str | None:
    """Return what is missing and how to get it, or None if the images can be opened.

    A damaged set is not missing: reading it raises the error.
    """
    root = resolve_root(root)
    key = "missing", dataset, split, os.path.abspath(root)
    return once(key, lambda: _missing(dataset, split, root))


def _missing(dataset: str, split: str, root: Path) -> str | None:
    try:
        open_images(dataset, split, root=root)
    except FileNotFoundError as error:
        command = f"lowbit-bench datasets prepare {dataset}"
        said = str(error)
        return said if command in said else f"{said} See `{command} --root {root}`."
    except ValueError:  # damaged
        pass
    return None


class ImagesInMemory:
    """`Images` held as bytes, on each device that requested them."""

    frames = targets = None

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


def _central(images: Tensor, view: Center) -> Tensor:
    """Resize square bytes (N, 3, H, H) if needed, and crop the centre."""
    if images.shape[-2:] != (view.resize, view.resize):
        large = F.interpolate(
            images.float(), size=(view.resize,) * 2, mode=view.interpolation, antialias=True
        )
        # Back to bytes, as an image library would return them.
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
