"""Decode image files to bytes: one file, or a set of small ones that is decoded once and cached."""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from lowbit.common.input_files.regular_file import check_regular
from lowbit.data import sidecar_files

# Of the files that image folders and annotations name. GIF: some of Oxford-IIIT Pets' .jpg are one.
# Pillow tries forty others on a file that begins like one, whatever its name is.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
MAX_PIXELS = (
    178_956_970  # of an image: where Pillow refuses, whatever another library set its limit to
)

_CHUNK = 256  # files a thread decodes at a time
_QUARTER_TURNS = frozenset({5, 6, 7, 8})  # EXIF orientations
_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # of a whole JPEG, of a whole PNG
_LONGEST_END = max(map(len, _ENDS))
_PILLOWS_ERRORS = (  # of damaged files; Pillow refuses very large images by its own type
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(path: str | os.PathLike, *, upright: bool = False) -> Tensor:
    """Decode an image file to RGB bytes (3, H, W), repeating gray channels and dropping transparency.

    16-bit gray values are scaled to 8 bits by the depth of the format: 65,535 becomes 255.

    Args:
        path: the file.
        upright: turn a photograph as its EXIF orientation says.

    Raises:
        ValueError: the file is damaged, not an image, or of numbers without a known range; the
            message names it.
    """
    with _opened(path) as image:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":  # Pillow would clip these at 255
            pixels = np.repeat(_to_bytes(np.array(image))[..., None], 3, axis=-1)
        else:
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(path: str | os.PathLike, *, upright: bool = False) -> tuple[int, int]:
    """Return (height, width) from a file's header without decoding the image.

    Args:
        path: the file.
        upright: of the photograph turned as its EXIF orientation says.

    Raises:
        ValueError: the file is not an image.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = upright and image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
    return (width, height) if turned else (height, width)


def verified_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return the upright (height, width) of an image that can be decoded.

    A file that ends as a whole JPEG or PNG does is not decoded, so that this is fast.

    Raises:
        ValueError: the file is damaged or not an image.
    """
    size = image_size(path, upright=True)
    with open(path, "rb") as file:
        file.seek(-min(_LONGEST_END, os.path.getsize(path)), os.SEEK_END)
        whole = file.read().endswith(_ENDS)
    if not whole:
        decode(path)
    return size


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image; turn what Pillow raises, then or while it is decoded, into one error."""
    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
                )
            yield image
    except _PILLOWS_ERRORS as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}); nothing was loaded. Restore the file from its "
            "source, convert it to 8-bit JPEG or PNG, or remove it; `lowbit-bench datasets verify "
            "NAME --full` lists every such file."
        ) from error


def _to_bytes(gray: np.ndarray) -> np.ndarray:
    """Scale 16-bit values (H, W) to bytes; refuse other numbers, whose range is not known."""
    if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > 65535:
        raise ValueError(
            f"its pixels are {gray.dtype} from {gray.min():g} to {gray.max():g}, not 8 or 16 bits"
        )
    return np.round(gray / 257).astype(np.uint8)


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
        with contextlib.suppress(OSError, ValueError, EOFError):  # damaged ones are decoded again
            array = np.load(file, mmap_mode="c")  # copy on write: torch requires writable memory
            if array.shape == shape and array.dtype == np.uint8:
                return torch.from_numpy(array)
    images = decode_all(paths, size)
    sidecar_files.keep(
        file, lambda out: np.save(out, images.numpy()), otherwise="decodes all images again"
    )
    return images
