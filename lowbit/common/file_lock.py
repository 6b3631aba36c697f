"""File lock: one process at a time; others wait until it finishes or dies."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_logger = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock file `lock`, created if needed; a second process waits.

    Args:
        lock: an empty file, which is not removed.
        what: what is being created, for the log of waiting processes.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.info("waiting for the job that creates %s", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
