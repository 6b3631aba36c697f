"""Peak memory of loading and running a model, in a process of its own."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lowbit.common.child_python import import_variables
from lowbit.export.runtime import get_runtime

_STATUS = Path("/proc/self/status")
_MINUTES = 10


def peak_memory(model: Path, runtime: str, shape: Sequence[int]) -> int:
    """Return the bytes that a process grows by, at most, when it loads a model and runs a batch.

    The runtime's own code is not counted. One thread is used.

    Args:
        model: an ONNX file.
        runtime: its name.
        shape: of the batch.

    Raises:
        ValueError: the process failed.
    """
    command = [sys.executable, "-m", __name__, str(model), runtime, json.dumps([*shape])]
    done = subprocess.run(
        command,
        env={**os.environ, **import_variables()},
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"the peak memory of {model} in {runtime} was not measured: {said}")
    return int(done.stdout.split()[-1])


def _main(model: str, runtime: str, shape: str) -> None:
    module = get_runtime(runtime)
    images = np.zeros(json.loads(shape), np.float32)
    before = _resident()
    _forget_peak()
    session = module.load(Path(model), threads=1)
    session.run(images)
    print(max(0, _peak() - before))


def _resident() -> int:
    return _status("VmRSS") if _STATUS.exists() else _peak()


def _peak() -> int:
    # Not getrusage where there is a better one: on Linux its peak includes that of the parent process.
    if _STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _status(name: str) -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # else importing the runtime may count
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _main(*sys.argv[1:])
