"""The process of one job: runs the stage, writes the result, and ends if its runner ends.

A job that trains in several processes, one a GPU, is this process and its children.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from lowbit.benchmark.executors.disk_space import NO_SPACE, is_no_space
from lowbit.benchmark.executors.launch_processes import launch
from lowbit.benchmark.executors.resources import processes, usage
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.recipes.stages import get_stage
from lowbit.benchmark.recipes.yaml_files import validate
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import holds
from lowbit.benchmark.results.result_file import read_result, write_result
from lowbit.common.input_files.found_once import finding_once

SHARED = "features"  # beside the jobs' folders; may be deleted while nothing runs
_CHECK = 5.0  # s between checks whether the runner still holds the claim

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The task of a worker.

    Attributes:
        job: the job to run.
        inputs: the files to read, by recipe field.
        folder: the job's folder.
        token: token of the claim.
        threads: torch threads per process with a GPU, or in total on the CPU.
        gpus: visible GPUs, as in CUDA_VISIBLE_DEVICES; empty: those the runner sees.
    """

    job: Job
    inputs: Mapping[str, Path]
    folder: Path
    token: str
    threads: int
    gpus: tuple[str, ...] = ()


def main(task: Task, lifeline: Connection) -> None:
    """Run one job. Starts on a message through `lifeline`, and ends when it closes.

    Only the runner holds the other end, so it closes whenever the runner ends.
    """
    os.setsid()  # its own process group, ended as a whole; Ctrl-C reaches only the runner
    try:
        lifeline.recv_bytes()
    except EOFError:  # the runner died before the claim could name this process
        return
    threading.Thread(target=_watch, args=(task, lifeline), daemon=True).start()
    _prefer_as_victim()
    if task.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(task.gpus)  # before CUDA is initialized
    started, count = time.monotonic(), processes(task.job)
    try:
        _redirect(task.folder / build_result.LOG)
        _logger.info("%s (job %s, process %d)", task.job.title, task.job.id, os.getpid())
        code = launch(_share, task, processes=count) if count > 1 else _run(task)
    except Exception as error:  # no log, or the processes could not connect
        code = _fail(task, error, started)
    sys.exit(code)


def _share(task: Task) -> int:
    """Run one of several processes, with its rank in torchrun's variables."""
    log_to_stderr()
    with get_stage(task.job.stage).process_group():
        return _run(task)


@finding_once()
def _run(task: Task) -> int:
    """Run the stage; the first process writes the result; return the exit code."""
    started, job = time.monotonic(), task.job
    _set_up_torch(task.threads if task.gpus else max(1, task.threads // processes(job)))
    try:
        paths = {name: str(path) for name, path in task.inputs.items()}
        recipe = validate(job.stage, {**job.recipe, **_shared(task), **paths})
        returned = get_stage(job.stage).run(recipe, task.folder)
        if _rank(job) == 0:
            result = build_result.completed(
                job,
                returned,
                inputs=task.inputs,
                folder=task.folder,
                usage=usage(started, processes=processes(job)),
            )
            write_result(task.folder, result)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == os.EX_TEMPFAIL:
            _logger.info("%s", error)
            return os.EX_TEMPFAIL  # it saved its state to resume later; there is no result yet
        return _fail(task, error, started)
    return 0


def _fail(task: Task, error: BaseException, started: float) -> int:
    """Write the result of a job that raised, unless another process already did; return the exit code.

    A job that a full disk stopped has no result: it did not fail, and goes on once there is space.
    """
    if not is_no_space(error):
        try:
            _write_failure(task, error, started)
        except OSError as second:
            if not is_no_space(second):
                raise
            error = second
        else:
            return 1
    _logger.error("No space is left on a disk; the job stopped.", exc_info=error)
    return NO_SPACE


def _write_failure(task: Task, error: BaseException, started: float) -> None:
    _logger.error("The job failed.", exc_info=error)
    if read_result(task.folder) is None:  # else this error may be a consequence of the other
        result = build_result.failed(
            task.job,
            f"{type(error).__name__}: {error}",
            inputs=task.inputs,
            folder=task.folder,
            usage=usage(started, processes=processes(task.job)),
        )
        write_result(task.folder, result)


def _rank(job: Job) -> int:
    return int(os.environ["RANK"]) if processes(job) > 1 else 0


def _shared(task: Task) -> dict[str, str]:
    """Return the folder that jobs of a runs folder share, if the recipe uses one."""
    if task.job.recipe.get("cache_dir", "") is None:
        return {"cache_dir": str(task.folder.parent / SHARED)}
    return {}


def _watch(task: Task, lifeline: Connection) -> None:
    """End this process and its children when the runner is gone or has lost the claim."""
    while True:
        if lifeline.poll(_CHECK):  # nothing is sent any more: it has closed
            break
        try:
            if not holds(task.folder, task.token):
                break
        except (
            OSError
        ) as error:  # a temporary failure of the file system does not mean that the claim is lost
            _logger.warning("The claim could not be read: %s", error)
    os.killpg(0, signal.SIGKILL)


def _redirect(log: Path) -> None:
    """Send all output of this process, also from C, to the log."""
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def log_to_stderr() -> None:
    """Log to this process's standard error, where `_redirect` sends it to the job's log."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    faulthandler.enable(all_threads=False)  # a crash logs the stack of its thread
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)


def _prefer_as_victim() -> None:
    """Make the kernel end the job and not its runner when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        _logger.debug("This system has no oom_score_adj.")


def _set_up_torch(threads: int) -> None:
    import torch

    from lowbit.quant import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
