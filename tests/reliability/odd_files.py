"""Odd files: small mutations of good ones, and a child process with little memory to read each in."""

import contextlib
import json
import os
import random
import resource
import select
import signal
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2**30  # bytes that a reader may add to what its process has
SECONDS = 60  # that it may take, on a busy machine
_LONGEST = 10_000  # characters of a message
_NAMES = (
    "../../canary", "/canary", "..", ".", "", " ", "a/b", "con", "-rf", "a\nb", "\u202eknack",
    "a\x00b", "a" * 300, "\ud7ff\uffff", "%s{0}$HOME`canary`", "__class__",
)  # fmt: skip
_NUMBERS = (0, -1, 2**31, 2**63, 2**64, -(2**63), 1e308, float("nan"), float("inf"), 0.5)
_PIECES = (b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"../", b"{", b"]", b"\x80\x02c")


@dataclass(frozen=True)
class Reading:
    """How reading a file ended: `ended` is "read", "refused" or what went wrong."""

    ended: str
    memory: float  # MiB, the most, over what the process had before

    @property
    def clean(self) -> bool:
        return self.ended in ("read", "refused")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes that were cut, flipped, overwritten, moved or repeated somewhere."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 64, 4096)))
        match rng.randrange(6):
            case 0 if len(data) > 1:
                del data[rng.randrange(1, len(data)) :]
            case 1 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 2:
                data[at:end] = bytes(end - at)
            case 3:
                piece = rng.choice(_PIECES)
                data[at : at + len(piece)] = piece
            case 4:
                data[at:at] = data[at:end]
            case 5:
                del data[at:end]
    return bytes(data)


def swapped(content: Any, rng: random.Random, more: tuple = ()) -> Any:
    """Return a copy of nested values with one or some changed: its type, its size, its name, its place."""
    for _ in range(rng.choice((1, 1, 1, 3))):
        places = list(_places(content))
        content = _replace(content, rng.choice(places), rng, more)
    return content


def odd_value(rng: random.Random, more: tuple = ()) -> Any:
    """Return a value that hardly any field expects; `more`: others of the format's own."""
    nested: Any = []
    for _ in range(30):
        nested = [nested]
    simple = (*_NAMES, *_NUMBERS, None, True, [], {}, [[]], {"": ""}, nested, list(range(50)))
    return rng.choice((*simple, *more))


def read_in_child(
    read: Callable[[Path], object],
    path: Path,
    errors: tuple[type[Exception], ...],
    canary: Path,
    *,
    memory: int = MEMORY,
    seconds: float = SECONDS,
) -> Reading:
    """Read a file in a forked process of little memory; nothing of it may run, or appear in `canary`.

    Args:
        read: reads it.
        path: the file.
        errors: what it may raise: these, of this project's own code, with one message.
        canary: an empty folder, which the process works in.
        memory: bytes that the process may add to what it has.
        seconds: that it may take.
    """
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiver)
        _be_child(read, path, errors, canary, sender, memory)
    os.close(sender)
    with os.fdopen(receiver, "rb") as answer:
        ready, _, _ = select.select([answer], [], [], seconds)
        said = answer.read() if ready else b""
    if not ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    found = json.loads(said) if said else {"ended": f"died, status {status}", "memory": 0.0}
    if not ready:
        found["ended"] = f"took more than {seconds} s"
    if left := sorted(os.listdir(canary)):
        found["ended"] = f"left {left}"
        for name in left:
            (canary / name).unlink()
    return Reading(**found)


def _be_child(read, path, errors, canary, sender, memory) -> None:
    """Read the file, write how that ended, and leave."""
    before, null = _resident(), os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(null, standard)
    os.chdir(canary)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    try:
        read(path)
        ended = "read"
    except errors as error:
        ended = _judge(error)
    except BaseException as error:
        ended = f"raised {type(error).__name__}: {str(error)[:200]}"
    memory = max(0.0, _peak() - before)
    os.write(sender, json.dumps({"ended": ended, "memory": memory}).encode()[:60_000])
    os._exit(0)


def _judge(error: Exception) -> str:
    """Return "refused" if the error was raised on purpose, with a message that can be shown."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = str(error)
    if not Path(frame.filename).is_relative_to(ROOT):
        return f"let {type(error).__name__} of {Path(frame.filename).name} pass: {message[:200]}"
    if not message or len(message) > _LONGEST:
        return f"said {len(message)} characters"
    if {"Cc", "Cf", "Cs"} & {
        unicodedata.category(character) for character in set(message) - {"\n"}
    }:
        return f"said what a terminal may obey: {message[:200]!r}"
    return "refused"


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def _places(content: Any, place: tuple = ()) -> Iterator[tuple]:
    yield place
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _places(value, (*place, key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _places(value, (*place, index))


def _replace(content: Any, place: tuple, rng: random.Random, more: tuple) -> Any:
    if not place:
        return odd_value(rng, more) if rng.random() < 0.1 else content
    first, rest = place[0], place[1:]
    changed = dict(content) if isinstance(content, dict) else list(content)
    if rest:
        changed[first] = _replace(content[first], rest, rng, more)
        return changed
    match rng.randrange(4):
        case 0:
            del changed[first]
        case 1 if isinstance(changed, dict):
            changed[rng.choice(_NAMES)] = changed.pop(first)
        case _:
            changed[first] = odd_value(rng, more)
    return changed
