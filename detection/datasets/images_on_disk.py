"""Images that are decoded on access.

A photograph with an EXIF orientation is turned upright, as Detectron2 and annotation programs do.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 mean a quarter turn
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


class ImageFiles(Sequence[Tensor]):
    """The images at `paths`, each decoded on every access."""

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = tuple(os.fspath(path) for path in paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


def read_image(path: str | os.PathLike) -> Tensor:
    """Decode an image file to RGB bytes (3, H, W), upright.

    Raises:
        ValueError: the file is damaged or not an image.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of these
        raise unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return (height, width) of the upright image, from the file's header.

    Raises:
        ValueError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def unreadable(path: str | os.PathLike, error: Exception) -> ValueError:
    """Return the error for a damaged image file."""
    return ValueError(
        f"{path} cannot be decoded ({error}); nothing was loaded. Restore the file from its source, "
        "or remove it and its annotations."
    )
