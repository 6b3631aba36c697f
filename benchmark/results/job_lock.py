"""Job locks: at most one runner at a time holds the claim on a job's folder.

`lock` in the folder is created exclusively (O_CREAT | O_EXCL) and names its holder: host, the
processes of runner and worker, and a unique token. While the runner lives it touches the file
(heartbeat). A claim is dead, and can be taken over, if its processes on this host are gone, or, for
another host, whose processes cannot be seen, if there was no heartbeat for `STALE` seconds. These are
counted by the clock of the file system: from the time of the lock to that of a file touched just now.
On this host a process that runs keeps its claim without heartbeats, one that is suspended does not.
Takeovers are serialized by flock, so that of two runners that see the same dead claim, the second
cannot remove the first one's new claim.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from lowbit.common.input_files.regular_file import read_regular

LOCK = "lock"
HEARTBEAT = 10.0  # s between touches
STALE = 60.0  # s without a touch after which a claim is dead
_MOST_BYTES = 1 << 16  # of a lock file
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
_SKEW = 5.0  # s by which a clock may be off without a warning

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The holder of a claim.

    Attributes:
        host: `host_name()` of its machine.
        runner, worker: process ids; `worker` is 0 until the job's process exists.
        token: unique to the claim.
        started: when the two processes started, as the kernel counts, so that a later process with
            the same id is not taken for one of them; 0: not known.
    """

    host: str
    runner: int
    worker: int
    token: str
    started: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def states(self) -> str | None:
        """The states of its living processes, as /proc has them; None: of another host."""
        if self.host != host_name():
            return None
        processes = zip((self.runner, self.worker), self.started, strict=True)
        return "".join(_state(pid, started) for pid, started in processes if pid)


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
        holder = _own_holder(secrets.token_hex(8))
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
        claim = cls(folder / LOCK, _own_holder(token))
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
        started = self._holder.started[0], _start(pid) if pid else 0
        self._holder = replace(self._holder, worker=pid, started=started)
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


def remove_dead(folder: Path) -> None:
    """Remove the lock of a runner that was killed between its job's result and its release."""
    path = folder / LOCK
    if path.exists() and _is_dead(path):
        with _takeover(folder):
            if _is_dead(path):
                path.unlink(missing_ok=True)


def holds(folder: Path, token: str) -> bool:
    """Return whether the claim with `token` is the one on the job of `folder`."""
    holder = read_holder(folder / LOCK)
    return holder is not None and holder.token == token


def read_holder(path: Path) -> Holder | None:
    """Return the holder of a lock file; None if there is none, or it is just being written."""
    try:
        return Holder(**json.loads(read_regular(path, limit=_MOST_BYTES)))
    except (ValueError, TypeError):
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
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


def warn_of_skew(folder: Path) -> None:
    """Warn if this machine's clock is not that of the file system of `folder`."""
    skew = time.time() - _file_time(folder)
    if abs(skew) > _SKEW:
        _logger.warning(
            "The clock of this machine is %.0f s %s that of the file system of %s. Claims are "
            "compared by the latter, so no job is lost or runs twice; but times in logs and results "
            "are wrong. Set the clock.",
            abs(skew),
            "ahead of" if skew > 0 else "behind",
            folder,
        )


def _own_holder(token: str) -> Holder:
    return Holder(host_name(), os.getpid(), 0, token, started=(_own_start(os.getpid()), 0))


def _is_dead(path: Path) -> bool:
    try:
        with path.open() as file:  # opening makes NFS ask for the file's present time
            modified = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return False
    holder = read_holder(path)
    states = holder.states if holder is not None else None
    if states == "":
        return True
    if states is not None and set(states) - {"T", "t"}:
        return False
    return _file_time(path.parent.parent) - modified > STALE


def _file_time(folder: Path) -> float:
    """Return the time by the clock of the file system of `folder`: of a file touched just now."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # a folder that can only be read: its reader claims nothing
        return time.time()


def _state(pid: int, started: int) -> str:
    """Return the state of a process, as /proc has it; empty if it has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass  # another user's process: it exists
    fields = _stat(pid)
    if not fields:
        return "R"  # no /proc here
    if fields[0] in "ZX" or (started and int(fields[19]) != started):
        return ""  # a killed process keeps its pid until it is waited for; or the pid is another's
    return fields[0]


@cache
def _own_start(pid: int) -> int:
    return _start(pid)


def _start(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextlib.contextmanager
def _takeover(folder: Path) -> Iterator[None]:
    with (folder.parent / ".takeover").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
