"""Labelled images or videos read from files: workers decode and resize them batch by batch."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from lowbit.common.preemption import obey_parent_alone
from lowbit.data.decoding import decode
from lowbit.data.image_sets.spec import Files, ImageSet, choose
from lowbit.data.image_sets.video_folder import frames_of, spread
from lowbit.data.views.augment import normalize
from lowbit.data.views.streamed_views import BOX_DRAWS, cut
from lowbit.data.views.view import Center, Crop, rows

_MOST_WORKERS = 8  # by default


class ImagesInFiles:
    """`Images` of a set found by `locate`."""

    frames: int | None = None

    def __init__(self, spec: ImageSet, split: str) -> None:
        folder = spec.folder(None)
        self.name, self.split, self.split_sha256 = spec.name, split, spec.split_sha256
        self.classes = folder.classes
        self.ids = choose(folder.ids(), split)
        self.labels = folder.labels[self.ids]
        targets = getattr(folder, "targets", None)
        self.targets = None if targets is None else targets[self.ids]
        self._mean, self._std = spec.mean, spec.std
        self._files = folder.files(split)

    def __len__(self) -> int:
        return len(self.labels)

    def _viewer(self, view: Center | Crop) -> "_Viewer":
        return _Viewer(self._files, self.ids, view)

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
            self._viewer(view),
            batch_size=None,
            sampler=asked,
            collate_fn=_unchanged,
            num_workers=min(workers, len(asked)),
            pin_memory=device.type == "cuda",
            generator=Generator(),  # the global generator is reserved for the network
            worker_init_fn=obey_parent_alone,
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield normalize(batch.to(device, non_blocking=True), self._mean, self._std)


class VideosInFiles(ImagesInFiles):
    """`Images` of a video set found by `locate`; views are (B, F, 3, size, size)."""

    def __init__(self, spec: ImageSet, split: str) -> None:
        super().__init__(spec, split)
        self.frames = spec.frames

    def _viewer(self, view: Center | Crop) -> "_Viewer":
        return _VideoViewer(self._files, self.ids, view, self.frames)


class _Viewer:
    """Make the views of a batch, bytes (B, 3, size, size), in any process."""

    def __init__(self, files: Files, ids: Tensor, view: Center | Crop) -> None:
        self._files, self._ids, self._view = files, ids, view
        self._shape = (3, view.size, view.size)

    def __getitem__(self, places: list[int]) -> Tensor | str:
        views = torch.empty(len(places), *self._shape, dtype=torch.uint8)
        for row, place in enumerate(places):
            try:
                views[row] = self._see(self._files[place], int(self._ids[place]))
            except ValueError as error:  # passed on without a worker's traceback
                return str(error)
        return views

    def _see(self, path: str, image_id: int) -> Tensor:
        image, view = decode(path), self._view
        if isinstance(view, Center):
            return _central(image, view)
        bits = np.random.Philox(key=view.seed, counter=[0, 0, image_id, view.k])
        u = torch.from_numpy(np.random.Generator(bits).random(BOX_DRAWS + 1, dtype=np.float32))
        return cut(image, u, view)


class _VideoViewer(_Viewer):
    """Make views of videos, (B, F, 3, size, size): one crop and flip for all frames of a video."""

    def __init__(self, files: Files, ids: Tensor, view: Center | Crop, frames: int) -> None:
        super().__init__(files, ids, view)
        self._frames, self._shape = frames, (frames, *self._shape)

    def _see(self, path: str, image_id: int) -> Tensor:
        seen = spread(frames_of(path), self._frames)
        return torch.stack([super(_VideoViewer, self)._see(frame, image_id) for frame in seen])


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
