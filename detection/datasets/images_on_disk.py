"""Images that are decoded on access."""

import os
from collections.abc import Sequence

from torch import Tensor

from lowbit.data.decoding import decode


class ImageFiles(Sequence[Tensor]):
    """The images at `paths`, each decoded on every access.

    A photograph with an EXIF orientation is turned upright, as Detectron2 and annotation programs do.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = tuple(os.fspath(path) for path in paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index], upright=True)
