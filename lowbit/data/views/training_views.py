"""Sources of training views: images held in memory, or streamed from files.

A set whose images share one small size is decoded once and kept on the device as bytes; a batch is
augmented there. Anything else is streamed (`lowbit.data.views.streamed_views`): worker processes decode and crop, and
the device does the rest.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from lowbit.data.image_sets.registry import load, locate
from lowbit.data.image_sets.spec import Split, check_split, choose
from lowbit.data.views.augment import Augment
from lowbit.data.views.streamed_views import Streamed

# An augmentation that only resizes.
_PLAIN = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    **dict.fromkeys(("flip", "jitter_p", "gray_p", "blur_p"), 0.0),
}


class Batch(Protocol):
    """Images of a step. All views of a batch show the same images, row by row."""

    def view(self) -> Tensor:
        """Return a new random view, float (N, 3, size, size), normalized, on the device."""

    def image(self) -> Tensor:
        """Return the central square, resized and normalized, in the format of `view`."""


class ViewSource(Protocol):
    """Images of a split to train on, by their positions 0 .. len - 1.

    Attributes:
        name, split: which images.
        split_sha256: the identity of the set's splits.
        labels: the class of each position, int64 (len,), which training never uses.
    """

    name: str
    split: str
    split_sha256: str
    labels: Tensor

    def __len__(self) -> int: ...

    def epoch(self, batches: Tensor, epoch: int) -> Iterator[Batch]:
        """Yield a batch for each row of positions, int64 (steps, N), in order.

        A run that resumes within an epoch passes the remaining rows. Use a batch before requesting
        the next.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return everything later views depend on; call it between two batches."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def view_source(
    dataset: str,
    split: str,
    *,
    root: str | os.PathLike | None = None,
    size: int,
    augmentation: Mapping[str, Any],
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
) -> ViewSource:
    """Open a split for training, in memory if its images are small and of one size.

    Args:
        dataset: an image set, as in `load`.
        split: "train", "val", "test" or "trainval".
        root: folder of the sets; default `$LOWBIT_DATA`, else `./datasets`.
        size: height and width of a view, pixels.
        augmentation: options of `Augment`.
        device: where views are made.
        workers: processes that decode and crop; 0 for none (streamed images only).
        seed: of the views.
        rank: of this process. In memory each process draws from its own stream, while a
            streamed view depends on (seed, epoch, position, number of the view) alone: neither
            workers, nor ranks, nor a restart change a pixel of it.

    Raises:
        FileNotFoundError: the set's files are missing; the message explains how to get them.
        ValueError: the set or split is unknown, or its files are invalid.

    Example:
        >>> source = view_source("digits", "train", size=32, augmentation={"flip": 0.0})
        >>> batch = next(source.epoch(torch.arange(6).view(2, 3), epoch=0))
        >>> batch.view().shape
        torch.Size([3, 3, 32, 32])
    """
    check_split(dataset, split)
    spec = locate(dataset, root=root)
    if spec.frames is not None:
        raise ValueError(
            f"{dataset} is a set of videos, which are classified but not pretrained on; nothing was "
            "loaded. Put frames into class folders and name them folder:NAME."
        )
    device = torch.device(device)
    constants = {"mean": spec.mean, "std": spec.std}
    augment = Augment(size, **constants, **augmentation)
    if spec.size is None:
        folder = spec.folder(None)
        return Streamed(
            folder.files(split),
            name=dataset,
            split=split,
            split_sha256=spec.split_sha256,
            labels=folder.labels[choose(folder.ids(), split)],
            augment=augment,
            device=device,
            workers=workers,
            seed=seed,
        )
    return InMemory(
        load(dataset, split, root=root),
        augment=augment,
        prepare=Augment(size, **constants, **{**augmentation, **_PLAIN}),
        generator=_stream(seed, rank, device),
        device=device,
    )


def _stream(seed: int, rank: int, device: torch.device) -> Generator:
    name = f"{seed}/views/{rank}" if rank else f"{seed}/views"
    digest = hashlib.sha256(name.encode()).digest()
    return Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class InMemory:
    """`ViewSource` of images held on the device as bytes.

    The generator owns all randomness, so views depend on the order of requests.
    """

    def __init__(
        self,
        split: Split,
        *,
        augment: Augment,
        prepare: Augment,
        generator: Generator,
        device: torch.device,
    ) -> None:
        self.name, self.split, self.split_sha256 = split.name, split.split, split.split_sha256
        self.labels = split.labels
        self.augment, self.prepare, self.generator = augment, prepare, generator
        self.labels = split.labels
        self._images = split.images.to(device)

    def __len__(self) -> int:
        return len(self._images)

    def epoch(self, batches: Tensor, epoch: int) -> Iterator["ResidentBatch"]:
        for positions in batches.to(self._images.device):
            yield ResidentBatch(self, self._images[positions])

    def state_dict(self) -> dict[str, Any]:
        return {"views": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["views"])


class ResidentBatch:
    """Images uint8 (N, 3, H, W) of a step, augmented on demand."""

    def __init__(self, source: InMemory, images: Tensor) -> None:
        self._source, self._images = source, images

    def view(self) -> Tensor:
        return self._source.augment(self._images, self._source.generator)

    def image(self) -> Tensor:
        return self._source.prepare(self._images, self._source.generator)
