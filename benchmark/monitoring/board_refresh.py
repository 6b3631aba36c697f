"""Rebuild the board while a sweep runs, in a low-priority process."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from lowbit.common.child_python import import_variables

_PAUSE = 180.0  # s between boards, at least
_SHARE = 0.02  # largest share of the time spent on them
_COMMAND = ("-m", "lowbit", "leaderboard")
_PATIENCE = 5.0  # s it has to end
_SMALL = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

_logger = logging.getLogger(__name__)


class BoardRefresher:
    """Rebuilds the board of a folder from time to time; call it after each event.

    Runners that share a folder share the pause, which is measured from the age of the page.
    """

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._building: subprocess.Popen | None = None
        self._started = time.monotonic()
        self._due = self._started + _PAUSE  # a sweep of minutes has its board in the end

    def __call__(self) -> None:
        """Start a build if the last one is old enough."""
        now = time.monotonic()
        if self._building is not None:
            if (code := self._building.poll()) is None:
                return
            if code:
                _logger.warning(
                    "The board could not be built while jobs run; it will be built at the end."
                )
            self._building = None
            self._due = now + max(_PAUSE, (now - self._started) / _SHARE)
        if now < self._due:
            return
        if (age := self._age()) < _PAUSE:  # another runner's, or the last run's
            self._due = now + _PAUSE - age
            return
        self._started = now
        self._building = subprocess.Popen(
            [sys.executable, *_COMMAND, "build", str(self._runs_dir)],
            env={**os.environ, **import_variables(), **_SMALL},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the runner alone
            preexec_fn=_give_way,
        )

    def end(self) -> None:
        """End a running build; each of its files stays complete, old or new."""
        if self._building is None:
            return
        self._building.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._building.wait(_PATIENCE)
        self._building.kill()
        self._building.wait()
        self._building = None

    def _age(self) -> float:
        page = self._runs_dir / "leaderboard" / "index.html"
        try:
            return time.time() - page.stat().st_mtime
        except FileNotFoundError:
            return _PAUSE


def _give_way() -> None:
    os.nice(19)
