"""Labelled images that stay in their files: worker processes decode and resize, batch by batch."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from data.augment import normalize
from data.decoding import decode
from data.folder import Files
from data.images import Center, Crop, rows
from data.sets import ImageSet, choose
from data.stream import BOX_DRAWS, cut

_MOST_WORKERS = 8  # by default


class ImagesInFiles:
    """Images of a set that `locate` found: `Images`."""

    def __init__(self, spec: ImageSet, split: str) -> None:
        folder = spec.folder(None)
        self.name, self.split, self.split_sha256 = spec.name, split, spec.split_sha256
        self.classes = folder.classes
        self.ids = choose(folder.ids(), split)
        self.labels = folder.labels[self.ids]
        self._mean, self._std = spec.mean, spec.std
        self._files = folder.files(split)

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
        device = torch.device(device)
        asked = [batch.tolist() for batch in rows(places, len(self), batch_size)]
        if workers is None:
            workers = min(_cores(), _MOST_WORKERS)
        loader = DataLoader(
            _Viewer(self._files, self.ids, view),
            batch_size=None,
            sampler=asked,
            collate_fn=_unchanged,
            num_workers=min(workers, len(asked)),
            pin_memory=device.type == "cuda",
            generator=Generator(),  # the global one is the network's alone
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield normalize(batch.to(device, non_blocking=True), self._mean, self._std)


class _Viewer:
    """Make the views of a batch, bytes (B, 3, size, size), in whatever process."""

    def __init__(self, files: Files, ids: Tensor, view: Center | Crop) -> None:
        self._files, self._ids, self._view = files, ids, view

    def __getitem__(self, places: list[int]) -> Tensor | str:
        size = self._view.size
        views = torch.empty(len(places), 3, size, size, dtype=torch.uint8)
        for row, place in enumerate(places):
            try:
                image = decode(self._files[place])
            except ValueError as error:  # told as it is, not as a worker's traceback
                return str(error)
            views[row] = self._make(image, int(self._ids[place]))
        return views

    def _make(self, image: Tensor, image_id: int) -> Tensor:
        view = self._view
        if isinstance(view, Center):
            return _central(image, view)
        bits = np.random.Philox(key=view.seed, counter=[0, 0, image_id, view.k])
        u = torch.from_numpy(np.random.Generator(bits).random(BOX_DRAWS + 1, dtype=np.float32))
        return cut(image, u, view)


def _central(image: Tensor, view: Center) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as vision

    mode = InterpolationMode(view.interpolation)
    large = vision.resize(image, [view.resize], interpolation=mode, antialias=True)
    return vision.center_crop(large, [view.size, view.size])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _unchanged(views: Tensor | str) -> Tensor | str:
    return views
