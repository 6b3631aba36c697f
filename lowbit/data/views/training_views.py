"""Sources of training views: images held in memory, or streamed from files.

A set whose images share one small size is decoded once and kept on the device as bytes; a batch is
augmented there. Anything else is streamed (`lowbit.data.views.streamed_views`): worker processes decode and crop, and
the device does the rest.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from lowbit.data.image_sets.registry import locate, read_split
from lowbit.data.image_sets.spec import Split, check_split, choose
from lowbit.data.views.augment import CHUNK_FLOATS, Augment
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
        read_split(spec, split, root=root),
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

    The generator owns all randomness, so views depend on the order of requests. Views of small batches are
    made for several batches at once, as many as the last batch was asked for; they are those that
    each request would have made, and a batch that is used otherwise puts the generator back.
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
        self._images = split.images.to(device)
        self._ahead: _Ahead | None = None

    def __len__(self) -> int:
        return len(self._images)

    def epoch(self, batches: Tensor, epoch: int) -> Iterator["ResidentBatch"]:
        self._put_back()
        rows, done, views = batches.to(self._images.device), 0, 0
        while done < len(rows):
            fit = self._batches_at_once(rows.shape[1], views)
            group = rows[done : done + max(1, fit)]
            ahead = self._ahead = self._make(group, views) if fit else None
            for positions in group:
                batch = ResidentBatch(self, positions, views if ahead else 0)
                yield batch
                done, views = done + 1, 0 if batch.image_asked else batch.views_asked
                if ahead is not None and batch.views_asked != batch.views_made:
                    self._put_back()
                if self._ahead is not ahead:
                    break
        self._put_back()

    def view(self, positions: Tensor) -> Tensor:
        """Return a new view of the images at these positions, made now."""
        self._put_back()
        return self.augment(self._images[positions], self.generator)

    def made_view(self) -> Tensor:
        """Return the next of the views that were made ahead."""
        return self._ahead.take()

    def image(self, positions: Tensor) -> Tensor:
        """Return the central squares of the images at these positions."""
        self._put_back()
        return self.prepare(self._images[positions], self.generator)

    def state_dict(self) -> dict[str, Any]:
        ahead = self._ahead
        return {"views": self.generator.get_state() if ahead is None else ahead.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._ahead = None
        self.generator.set_state(state["views"])

    def _batches_at_once(self, size: int, views: int) -> int:
        floats = 3 * self.augment.size**2 * size * views
        return CHUNK_FLOATS // floats if floats else 0

    def _make(self, rows: Tensor, views: int) -> "_Ahead":
        """Make so many views of each row of positions, (batches, N)."""
        states, drawn = [self.generator.get_state()], []
        for _ in range(len(rows) * views):
            drawn.append(self.augment.draw(rows.shape[1], self.generator))
            states.append(self.generator.get_state())
        images = self._images[rows.repeat_interleave(views, 0).flatten()]
        made = self.augment.view(images, *(torch.cat(each) for each in zip(*drawn, strict=True)))
        return _Ahead(made.split(rows.shape[1]), states)

    def _put_back(self) -> None:
        """Forget what was made ahead and not taken."""
        if self._ahead is not None:
            self.generator.set_state(self._ahead.state)
            self._ahead = None


class _Ahead:
    """Views made before they are asked for, and the generator's state before each and after the last."""

    def __init__(self, views: Sequence[Tensor], states: Sequence[Tensor]) -> None:
        self._views, self._states = views, states
        self._taken = 0

    @property
    def state(self) -> Tensor:
        """The generator's state if only the views taken had been drawn."""
        return self._states[self._taken]

    def take(self) -> Tensor:
        self._taken += 1
        return self._views[self._taken - 1]


class ResidentBatch:
    """Images of a step, by their positions (N,), augmented on demand or ahead.

    Attributes:
        views_made: number of views made ahead.
        views_asked, image_asked: what was asked for.
    """

    def __init__(self, source: InMemory, positions: Tensor, views_made: int) -> None:
        self._source, self._positions = source, positions
        self.views_made = views_made
        self.views_asked, self.image_asked = 0, False

    def view(self) -> Tensor:
        self.views_asked += 1
        if self.views_asked <= self.views_made:
            return self._source.made_view()
        return self._source.view(self._positions)

    def image(self) -> Tensor:
        self.views_made, self.image_asked = self.views_asked, True  # those left were put back
        return self._source.image(self._positions)
