"""The processes of the local executor: the server they are forked from, and how they end."""

import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

# Imported once, by the server. Importing them runs no operation, so that the server has no threads
# of torch's, which a fork would lose.
_PRELOAD = [
    "__main__",
    "torch",
    "torchvision",
    "timm",
    "sklearn.datasets",  # what reads the digits
    "benchmark.executors.worker",
]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# scikit-learn imports pandas, and that pyarrow, whose allocator would start a thread of its own.
_NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
SERVER_LOST = 255  # the exit code of a process whose fork server has died


def start_server(threads: int) -> ForkServerContext:
    """Start the server that jobs are forked from, and return its context."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    # Hack: until Python 3.13 the server ignores sys.path, so that it would not find our packages
    # outside the repository's folder; it reads the environment.
    settings = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | _NO_THREAD
    settings["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


def signal_group(process: ForkServerProcess, signum: int) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(process.pid, signum)
            except ProcessLookupError:  # it has not made its group yet
                os.kill(process.pid, signum)


def describe_death(code: int | None) -> str:
    """Say how a process ended that left no result."""
    if code is None or code >= 0:
        return f"ProcessDied: the job's process ended with exit code {code} and left no result."
    name = signal.Signals(-code).name
    hint = " (out of memory, most often)" if name == "SIGKILL" else ""
    return f"ProcessDied: the job's process was ended by {name}{hint} and left no result."
