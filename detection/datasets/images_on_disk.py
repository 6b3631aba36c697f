"""Images that stay in their files until they are asked for.

A photograph that its camera marked as turned (EXIF) is turned upright, as Detectron2 does and as
annotation programs show it.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 stand for a quarter turn
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


class ImageFiles(Sequence[Tensor]):
    """The images at `paths`, each decoded anew whenever it is asked for."""

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = tuple(os.fspath(path) for path in paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


def read_image(path: str | os.PathLike) -> Tensor:
    """Decode an image file to RGB bytes (3, H, W), upright.

    Raises:
        ValueError: the file is damaged, or no image.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them
        raise unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return (height, width) of the upright image, from the file's header.

    Raises:
        ValueError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def unreadable(path: str | os.PathLike, error: Exception) -> ValueError:
    """Return the error that a damaged image file is answered with."""
    return ValueError(
        f"{path} cannot be decoded ({error}); nothing was loaded. Restore the file from its source, "
        "or remove it and its annotations."
    )
