"""Decode image files to bytes: one file, or a set of small ones that is decoded once and cached."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowbit.data import sidecar_files

_CHUNK = 256  # files a thread decodes at a time


def decode(path: str | os.PathLike) -> Tensor:
    """Decode an image file to RGB bytes (3, H, W), repeating gray channels and dropping transparency.

    Raises:
        ValueError: the file is damaged or not an image; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I")  # 16 bits, which Pillow would clip
            pixels = np.array(image if deep or image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of these
        raise ValueError(
            f"{path} cannot be decoded ({error}); nothing was loaded. Restore the file from its "
            "source, or remove it; `lowbit-bench datasets verify NAME --full` lists every such file."
        ) from error
    if deep:
        pixels = np.repeat(np.round(pixels / 257).astype(np.uint8)[..., None], 3, axis=-1)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return (height, width) from a file's header without decoding the image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(
            f"{path} is not a readable image; nothing was loaded. Restore the file from its "
            "source, or remove it."
        ) from error


def decode_all(paths: Sequence[str | os.PathLike], size: int) -> Tensor:
    """Decode files of `size` by `size` pixels to (N, 3, size, size).

    Decodes sequentially: at this size threads would wait for the interpreter's lock longer than they
    decode.

    Raises:
        ValueError: a file is damaged or of another size; the message names it.
    """
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    for path, place in zip(paths, images.numpy(), strict=True):
        image = decode(path).numpy()
        if image.shape[1:] != (size, size):
            raise ValueError(
                f"{path} has {image.shape[2]} x {image.shape[1]} pixels while the files inspected "
                f"before it have {size} x {size}; nothing was loaded. Resize it, or remove it."
            )
        place[...] = image
    return images


def problems(paths: Sequence[str | os.PathLike]) -> Iterator[str | None]:
    """Decode files in threads; yield for each, in order, its problem or None."""

    def look(start: int) -> list[str | None]:
        return [_problem(path) for path in paths[start : start + _CHUNK]]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(look, range(0, len(paths), _CHUNK)):
            yield from found


def _problem(path: str | os.PathLike) -> str | None:
    try:
        decode(path)
    except ValueError as error:
        return str(error)
    return None


def kept(file: Path, paths: Sequence[str | os.PathLike], size: int, *, newest_ns: int) -> Tensor:
    """Return `decode_all(paths, size)`, read from `file` if that is newer than the images.

    The file is written atomically. If its folder is not writable, a warning is logged and the images
    are decoded again at every start.
    """
    shape = (len(paths), 3, size, size)
    if file.is_file() and file.stat().st_mtime_ns >= newest_ns:
        array = np.load(file, mmap_mode="c")  # copy on write: torch requires writable memory
        if array.shape == shape and array.dtype == np.uint8:
            return torch.from_numpy(array)
    images = decode_all(paths, size)
    sidecar_files.keep(
        file, lambda out: np.save(out, images.numpy()), otherwise="decodes all images again"
    )
    return images
