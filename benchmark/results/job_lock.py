"""The right to run a job: at most one runner at a time holds a job's folder.

`lock` in the folder is created exclusively (O_CREAT | O_EXCL) and says who holds it: host, the
runner's process and the worker's, and a token of its own. While the runner lives it touches the
file (heartbeat). A claim is dead, and anyone's to take over, when its processes are gone from this
host, or when its heart has not beaten for `STALE` seconds (another host, whose processes cannot
be seen; clocks may differ by less than that). Takeovers are serialized by flock, so that two
runners that see the same dead claim cannot both bury it and one of them a living one.
"""

import contextlib
import fcntl
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

LOCK = "lock"
HEARTBEAT = 10.0  # s between touches
STALE = 60.0  # s without a touch after which a claim is dead

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a claim. `worker` is 0 until the job's process exists."""

    host: str
    runner: int
    worker: int
    token: str

    @property
    def gone(self) -> bool:
        """Whether both processes are known to be dead."""
        if self.host != host_name():
            return False
        return not any(_is_alive(pid) for pid in (self.runner, self.worker) if pid)


class Claim:
    """A claim this process holds; `Claim.take` makes them."""

    def __init__(self, path: Path, holder: Holder):
        self._path = path
        self._holder = holder
        self._beat = time.monotonic()

    @classmethod
    def take(cls, folder: Path) -> "Claim | None":
        """Claim the job of `folder`, made if need be; None while another runner holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        holder = Holder(host_name(), os.getpid(), 0, secrets.token_hex(8))
        if _create(path, holder):
            return cls(path, holder)
        if not _is_dead(path):
            return None
        with _takeover(folder):
            if _is_dead(path):  # still: another runner may have taken it over since
                _logger.info("Taking over %s from a runner that is gone.", folder.name)
                path.unlink(missing_ok=True)
                if _create(path, holder):
                    return cls(path, holder)
        return None

    @classmethod
    def inherit(cls, folder: Path, token: str) -> "Claim | None":
        """Go on with a claim that a runner elsewhere took for this process, and now lets go of.

        None if it was lost meanwhile: the lock is gone or another's.
        """
        claim = cls(folder / LOCK, Holder(host_name(), os.getpid(), 0, token))
        with _takeover(folder):
            if not holds(folder, token):
                return None
            claim.name_worker(0)  # there is none yet
        return claim

    @property
    def token(self) -> str:
        """What tells this claim from any other on the same job."""
        return self._holder.token

    @property
    def held(self) -> bool:
        """Whether the claim is still ours: a runner that slept too long loses it, one may hand it on."""
        return read_holder(self._path) == self._holder

    def name_worker(self, pid: int) -> None:
        """Record the job's process: the claim outlives a killed runner as long as it lives."""
        self._holder = replace(self._holder, worker=pid)
        # Renamed, so that nobody reads half of it; not synced: a machine that dies has no processes.
        new = self._path.with_name(f".{LOCK}.{self.token}")
        new.write_text(json.dumps(asdict(self._holder)))
        new.replace(self._path)

    def beat(self) -> bool:
        """Touch the lock, at most every `HEARTBEAT` seconds; return whether it was time."""
        if time.monotonic() - self._beat < HEARTBEAT:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path)
        self._beat = time.monotonic()
        return True

    def release(self) -> None:
        """Give the job back, unless another has the claim by now."""
        if self.held:
            self._path.unlink(missing_ok=True)


def holds(folder: Path, token: str) -> bool:
    """Return whether the claim with `token` is the one on the job of `folder`."""
    holder = read_holder(folder / LOCK)
    return holder is not None and holder.token == token


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lock file; None if there is none, or it is just being written."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def live_holder(folder: Path) -> Holder | None:
    """Return who runs the job of `folder` now; None: nobody, or one who is gone."""
    path = folder / LOCK
    holder = read_holder(path)
    return None if holder is None or _is_dead(path) else holder


def host_name() -> str:
    """Name the machine and its process numbering: containers may share a name, not the numbers."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return f"{platform.node()} {numbering}".strip()


def _create(path: Path, holder: Holder) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(asdict(holder)))
    return True


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    holder = read_holder(path)
    return age > STALE or (holder is not None and holder.gone)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # someone else's process: it exists
    try:  # a killed process that nobody has waited for still has a pid
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state != "Z"


@contextlib.contextmanager
def _takeover(folder: Path) -> Iterator[None]:
    with (folder.parent / ".takeover").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
