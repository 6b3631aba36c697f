"""Small cache files next to a user's images, written atomically; a failed write is only logged."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lowbit.common.atomic_file import atomic

FOLDER = ".lowbit"  # next to train/

_logger = logging.getLogger(__name__)


def keep(file: Path, write: Callable[[BinaryIO], object], *, otherwise: str) -> None:
    """Let `write` fill a temporary file that becomes `file`.

    Args:
        file: in a folder that is created if needed.
        write: called with the open file.
        otherwise: what the next start does if writing fails, for the log.
    """
    try:
        file.parent.mkdir(exist_ok=True)
        with atomic(file) as out:
            write(out)
    except OSError as error:  # a read-only folder, a full disk
        _logger.warning("%s could not be written (%s): the next start %s.", file, error, otherwise)
