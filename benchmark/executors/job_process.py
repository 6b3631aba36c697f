"""Start and end job processes on a machine, forked from a server."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType

from lowbit.benchmark.executors import worker
from lowbit.benchmark.results.job_lock import Claim
from lowbit.common.child_python import import_variables

# Imported once, by the server. Importing them runs no operation, so the server has no torch threads,
# which a fork would lose.
_PRELOAD = [
    "lowbit.quant",
    "torch",
    "torchvision",
    "timm",
    "sklearn.datasets",  # what reads the digits
    "lowbit.benchmark.executors.worker",
]
_PREPARE = "lowbit.benchmark.executors.job_server"  # after all other imports
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# scikit-learn imports pandas, which imports pyarrow, whose allocator would start a thread.
_NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
SERVER_LOST = 255  # the exit code of a process whose fork server has died


def start_server(threads: int, stages: Iterable[str]) -> ForkServerContext:
    """Start the server that jobs are forked from, and return its context.

    Args:
        threads: threads per job.
        stages: stages of the jobs.
    """
    context = multiprocessing.get_context("forkserver")
    modules = [f"lowbit.{stage}{part}" for stage in stages for part in ("", ".stage")]
    context.set_forkserver_preload([*_PRELOAD, *modules, _PREPARE])
    # Hack: until Python 3.13 the server ignores sys.path, but it reads the environment.
    threading = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    settings = threading | _NO_THREAD | import_variables()
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


def start_job(
    context: ForkServerContext, task: worker.Task, claim: Claim
) -> tuple[ForkServerProcess, Connection]:
    """Start a job's process under its claim; return it and the pipe that ends it when closed.

    Hack: multiprocessing makes every process import `__main__`; jobs need nothing from it, and the
    imports take longer than many jobs.
    """
    receiver, lifeline = context.Pipe(duplex=False)
    process = context.Process(target=worker.main, args=(task, receiver), name=task.job.id)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    receiver.close()
    claim.name_worker(process.pid)
    with contextlib.suppress(BrokenPipeError):  # it already died, which its runner will notice
        lifeline.send_bytes(b"go")
    return process, lifeline


def signal_group(process: ForkServerProcess, signum: int) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(process.pid, signum)
            except ProcessLookupError:  # it has not created its group yet
                os.kill(process.pid, signum)


def describe_death(code: int | None) -> str:
    """Describe the end of a process that left no result."""
    if code is None or code >= 0:
        return f"ProcessDied: the job's process ended with exit code {code} and left no result."
    name = signal.Signals(-code).name
    hint = " (out of memory, most often)" if name == "SIGKILL" else ""
    return f"ProcessDied: the job's process was ended by {name}{hint} and left no result."
