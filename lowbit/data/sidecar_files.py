"""Small files kept beside a user's images: written whole or not at all, never a reason to fail."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lowbit.common.atomic_file import atomic

FOLDER = ".lowbit"  # beside train/

_logger = logging.getLogger(__name__)


def keep(file: Path, write: Callable[[BinaryIO], object], *, otherwise: str) -> None:
    """Let `write` fill a temporary file that becomes `file`.

    Args:
        file: in a folder that may have to be made.
        write: called with the open file.
        otherwise: what the next start has to do where this one cannot write; goes into the log.
    """
    try:
        file.parent.mkdir(exist_ok=True)
        with atomic(file) as out:
            write(out)
    except OSError as error:  # a read-only folder, a full disk
        _logger.warning("%s could not be kept (%s): the next start %s.", file, error, otherwise)
