"""Job locks: at most one runner at a time holds the claim on a job's folder.

`lock` in the folder is created exclusively (O_CREAT | O_EXCL) and names its holder: host, the
processes of runner and worker, and a unique token. While the runner lives it touches the file
(heartbeat). A claim is dead, and can be taken over, if its processes on this host are gone, or, for
another host, whose processes cannot be seen, if there was no heartbeat for `STALE` seconds (clocks
must differ by less than that). Takeovers are serialized by flock, so that of two runners that see
the same dead claim, the second cannot remove the first one's new claim.
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
    """The holder of a claim. `worker` is 0 until the job's process exists."""

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
    """A claim held by this process; created by `Claim.take`."""

    def __init__(self, path: Path, holder: Holder):
        self._path = path
        self._holder = holder
        self._beat = time.monotonic()

    @classmethod
    def take(cls, folder: Path) -> "Claim | None":
        """Claim the job of `folder`, created if missing; None while another runner holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        holder = Holder(host_name(), os.getpid(), 0, secrets.token_hex(8))
        if _create(path, holder):
            return cls(path, holder)
        if not _is_dead(path):
            return None
        with _takeover(folder):
            if _is_dead(path):  # check again: another runner may have taken it over since
                _logger.info("Taking over %s from a runner that is gone.", folder.name)
                path.unlink(missing_ok=True)
                if _create(path, holder):
                    return cls(path, holder)
        return None

    @classmethod
    def inherit(cls, folder: Path, token: str) -> "Claim | None":
        """Take over a claim that a runner elsewhere made for this process.

        None if it was lost meanwhile: the lock is gone or held by another.
        """
        claim = cls(folder / LOCK, Holder(host_name(), os.getpid(), 0, token))
        with _takeover(folder):
            if not holds(folder, token):
                return None
            claim.name_worker(0)  # there is none yet
        return claim

    @property
    def token(self) -> str:
        """The unique token of this claim."""
        return self._holder.token

    @property
    def held(self) -> bool:
        """Whether the claim is still ours: it is lost after a long suspension, or handed over."""
        return read_holder(self._path) == self._holder

    def name_worker(self, pid: int) -> None:
        """Record the job's process: the claim survives a killed runner while that process lives."""
        self._holder = replace(self._holder, worker=pid)
        # Renamed, so that no reader sees a partial file; not synced: a dead machine has no processes.
        new = self._path.with_name(f".{LOCK}.{self.token}.tmp")
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
        """Release the job, unless another runner has the claim by now."""
        if self.held:
            self._path.unlink(missing_ok=True)


def holds(folder: Path, token: str) -> bool:
    """Return whether the claim with `token` is the one on the job of `folder`."""
    holder = read_holder(folder / LOCK)
    return holder is not None and holder.token == token


def read_holder(path: Path) -> Holder | None:
    """Return the holder of a lock file; None if there is none, or it is just being written."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def live_holder(folder: Path) -> Holder | None:
    """Return the runner of the job of `folder`; None if there is none, or it is dead."""
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
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(asdict(holder)))
    except OSError:  # a lock that names nobody would keep others out
        path.unlink(missing_ok=True)
        raise
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
        return True  # another user's process: it exists
    try:  # a killed process keeps its pid until it is waited for
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state != "Z"


@contextlib.contextmanager
def _takeover(folder: Path) -> Iterator[None]:
    with (folder.parent / ".takeover").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
