"""Views streamed from image files: worker processes decode and crop, the device does the rest.

Every random number of a view is drawn by a counter-based generator (Philox) from (seed, epoch,
position of the image, number of the view). So the number of workers, a process' share of a
batch, and a restart within an epoch change no pixel, and there is no state to save.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lowbit.common.preemption import obey_parent_alone
from lowbit.data.decoding import decode
from lowbit.data.image_sets.spec import Files
from lowbit.data.views.augment import Augment, normalize
from lowbit.data.views.crops import CROP_ATTEMPTS, boxes, central_box

BOX_DRAWS = 4 * CROP_ATTEMPTS  # uniforms that decide a crop's box


@dataclass(frozen=True)
class Request:
    """Request to a worker: which images, which views, and whether the image itself."""

    epoch: int
    positions: list[int]
    views: tuple[int, ...]
    image: bool


@dataclass(frozen=True)
class Crops:
    """A worker's result: bytes (N, 3, size, size), already flipped, and the remaining random numbers.

    Attributes:
        views: crops, by the number of the view.
        uniform: (N, draws) for the operations that follow, by the number of the view.
        image: the central square, if requested.
        problem: error with a file, in which case nothing was made.
    """

    views: dict[int, Tensor] = field(default_factory=dict)
    uniform: dict[int, Tensor] = field(default_factory=dict)
    image: Tensor | None = None
    problem: str | None = None

    def pin_memory(self) -> "Crops":
        return Crops(
            views={view: crops.pin_memory() for view, crops in self.views.items()},
            uniform={view: uniform.pin_memory() for view, uniform in self.uniform.items()},
            image=None if self.image is None else self.image.pin_memory(),
            problem=self.problem,
        )


@dataclass
class Plan:
    """Sampler of an epoch's requests.

    It holds no reference to its source: a reference cycle would end the loader's workers out of order.

    Attributes:
        epoch, rows: which images.
        views, image: number of views that workers prepare, and whether the image too, as requested of
            the last batch.
    """

    epoch: int = 0
    rows: list[list[int]] = field(default_factory=list)
    views: int = 2
    image: bool = False

    def __iter__(self) -> Iterator[Request]:
        for row in self.rows:
            yield Request(self.epoch, row, tuple(range(self.views)), self.image)


class Workshop:
    """`DataLoader` data set that decodes and crops requests in any process."""

    def __init__(self, files: Files, augment: Augment, seed: int) -> None:
        self._files, self._augment, self._seed = files, augment, seed

    def __getitem__(self, request: Request) -> Crops:
        size, count = self._augment.size, len(request.positions)
        crops = Crops(
            views={v: torch.empty(count, 3, size, size, dtype=torch.uint8) for v in request.views},
            uniform={v: torch.empty(count, self._augment.draws) for v in request.views},
            image=torch.empty(count, 3, size, size, dtype=torch.uint8) if request.image else None,
        )
        for row, position in enumerate(request.positions):
            try:
                image = decode(self._files[position])
            except ValueError as error:  # passed on without a worker's traceback
                return Crops(problem=str(error))
            for view in request.views:
                u = self._draw(request.epoch, position, view)
                crops.uniform[view][row] = u[BOX_DRAWS:]
                crops.views[view][row] = cut(image, u, self._augment)
            if request.image:
                box = central_box(*image.shape[1:], (1.0, 1.0))
                crops.image[row] = _resized(image, box, self._augment)
        return crops

    def _draw(self, epoch: int, position: int, view: int) -> Tensor:
        bits = np.random.Philox(key=self._seed, counter=[0, view, position, epoch])
        count = BOX_DRAWS + self._augment.draws
        return torch.from_numpy(np.random.Generator(bits).random(count, dtype=np.float32))


class HasCrop(Protocol):
    """Crop settings: an `Augment` or a `Crop`."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    interpolation: str


def cut(image: Tensor, u: Tensor, view: HasCrop) -> Tensor:
    """Crop, resize and flip bytes (3, H, W) to (3, size, size), by BOX_DRAWS + 1 or more uniforms."""
    tries = u[:BOX_DRAWS].view(4, 1, CROP_ATTEMPTS)
    box = boxes(tries, *image.shape[1:], scale=view.scale, ratio=view.ratio)[0].tolist()
    crop = _resized(image, box, view)
    return crop.flip(-1) if float(u[BOX_DRAWS]) < view.flip else crop


def _resized(image: Tensor, box: Sequence[int], view: HasCrop) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as vision

    mode = InterpolationMode(view.interpolation)
    return vision.resized_crop(image, *box, [view.size] * 2, interpolation=mode, antialias=True)


class Streamed:
    """`ViewSource` of images that stay in their files.

    Args:
        files: the split's.
        name, split, split_sha256, labels: of the split.
        augment: the augmentation of a view.
        device: where views are finished.
        workers: processes that decode, alive as long as the source; 0: decode in the calling process.
        seed: of all views.
    """

    def __init__(
        self,
        files: Files,
        *,
        name: str,
        split: str,
        split_sha256: str,
        labels: Tensor,
        augment: Augment,
        device: torch.device,
        workers: int,
        seed: int,
    ) -> None:
        self.name, self.split, self.split_sha256 = name, split, split_sha256
        self.augment, self.device = augment, device
        self.workshop = Workshop(files, augment, seed)
        self.labels = labels
        self._plan = Plan()
        self._loader = DataLoader(
            self.workshop,
            batch_size=None,
            sampler=self._plan,
            collate_fn=_unchanged,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the global generator is reserved for the network
            worker_init_fn=obey_parent_alone,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, batches: Tensor, epoch: int) -> Iterator["StreamedBatch"]:
        self._plan.epoch, self._plan.rows = epoch, batches.tolist()
        for row, crops in zip(self._plan.rows, self._loader, strict=True):
            if crops.problem:
                raise ValueError(crops.problem)
            batch = StreamedBatch(self, crops, epoch, row)
            yield batch
            if batch.views_asked or batch.image_asked:
                self._plan.views, self._plan.image = batch.views_asked, batch.image_asked

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state, "the state of another kind of source"


def _unchanged(crops: Crops) -> Crops:
    return crops


class StreamedBatch:
    """`Batch` whose crops are finished on demand.

    Views that were not prepared are made in this process now, and by workers in later batches.
    """

    def __init__(self, source: Streamed, crops: Crops, epoch: int, positions: list[int]) -> None:
        self._source, self._crops = source, crops
        self._epoch, self._positions = epoch, positions
        self.views_asked, self.image_asked = 0, False

    def view(self) -> Tensor:
        source, crops, number = self._source, self._crops, self.views_asked
        self.views_asked += 1
        if number not in crops.views:
            crops = self._make(views=(number,), image=False)
        bytes_, uniform = crops.views[number], crops.uniform[number]
        return source.augment.finish(self._placed(bytes_), self._placed(uniform))

    def image(self) -> Tensor:
        augment, crops = self._source.augment, self._crops
        self.image_asked = True
        if crops.image is None:
            crops = self._make(views=(), image=True)
        return normalize(self._placed(crops.image), augment.mean, augment.std)

    def _make(self, *, views: tuple[int, ...], image: bool) -> Crops:
        crops = self._source.workshop[Request(self._epoch, self._positions, views, image)]
        if crops.problem:
            raise ValueError(crops.problem)
        return crops

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._source.device, non_blocking=True)
