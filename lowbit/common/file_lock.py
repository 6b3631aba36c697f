"""File lock: one process at a time; others wait until it finishes or dies."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_logger = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock file `lock`, created if needed; a second process waits.

    Args:
        lock: an empty file, which only its holder may remove.
        what: what is being created, for the log of waiting processes.
    """
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _logger.info("waiting for the job that creates %s", what)
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(file, lock):
                yield
                return


@contextmanager
def lock_if_free(lock: Path) -> Iterator[bool]:
    """Hold the lock file `lock` if no process does; yield whether it is held here."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is(file, lock)


def _is(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at `path`: a holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
