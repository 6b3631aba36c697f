"""The process of one job: it runs the stage, writes the result, and dies with its runner."""

import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmark import outcome
from benchmark.claim import holds
from benchmark.job import Job
from benchmark.recipe import get_stage, validate
from benchmark.results import write_result

SHARED = "features"  # beside the jobs' folders; may be deleted while nothing runs
_CHECK = 5.0  # s between looks at whether the claim is still the runner's

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Attributes:
        job: what to do.
        inputs: the files to read, by recipe field.
        folder: where to do it.
        token: of the claim it works under.
        threads: how many torch may use.
        gpu: the only one it may see, as CUDA_VISIBLE_DEVICES names it; None: as the runner.
    """

    job: Job
    inputs: Mapping[str, Path]
    folder: Path
    token: str
    threads: int
    gpu: str | None


def main(task: Task, lifeline: Connection) -> None:
    """Run one job. Begins only when told to through `lifeline`, and ends when that closes.

    The runner holds the other end and nobody else does, so its death, however sudden, closes it.
    """
    os.setsid()  # a group of its own, which ends as one; Ctrl-C reaches the runner alone
    try:
        lifeline.recv_bytes()
    except EOFError:  # the runner died before the claim could name this process
        return
    threading.Thread(target=_watch, args=(task, lifeline), daemon=True).start()
    _redirect(task.folder / outcome.LOG)
    _prefer_as_victim()
    if task.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = task.gpu  # before anything initializes CUDA
    _set_up_torch(task.threads)
    started = time.monotonic()
    try:
        _logger.info("%s (job %s, process %d)", task.job.title, task.job.id, os.getpid())
        recipe = validate(
            task.job.stage,
            {
                **task.job.recipe,
                **_shared(task),
                **{name: str(path) for name, path in task.inputs.items()},
            },
        )
        returned = get_stage(task.job.stage).run(recipe, task.folder)
        result = outcome.completed(
            task.job,
            returned,
            inputs=task.inputs,
            folder=task.folder,
            usage=_usage(started),
        )
        write_result(task.folder, result)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == os.EX_TEMPFAIL:
            _logger.info("%s", error)
            raise  # it saved its state and goes on later; there is no result yet
        _logger.exception("The job failed.")
        reason = f"{type(error).__name__}: {error}"
        usage = _usage(started)
        write_result(
            task.folder,
            outcome.failed(task.job, reason, inputs=task.inputs, folder=task.folder, usage=usage),
        )
        sys.exit(1)


def _shared(task: Task) -> dict[str, str]:
    """Return where the jobs of a run folder keep what they share, for a recipe that asks for it."""
    if task.job.recipe.get("cache_dir", "") is None:
        return {"cache_dir": str(task.folder.parent / SHARED)}
    return {}


def _watch(task: Task, lifeline: Connection) -> None:
    """End this process and its children once the runner is gone or has lost the claim."""
    while True:
        if lifeline.poll(_CHECK):  # nothing is sent any more: it has closed
            break
        try:
            if not holds(task.folder, task.token):
                break
        except OSError as error:  # a file system that is away for a moment says nothing of claims
            _logger.warning("The claim could not be read: %s", error)
    os.killpg(0, signal.SIGKILL)


def _redirect(log: Path) -> None:
    """Send everything this process prints, also from C, to the log."""
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    faulthandler.enable(all_threads=False)  # a crash leaves the stack of the thread it was in
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)


def _prefer_as_victim() -> None:
    """Let the kernel, when memory runs out, end the job and not its runner."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        _logger.debug("This system has no oom_score_adj.")


def _set_up_torch(threads: int) -> None:
    import torch

    from quant import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def _usage(started: float) -> dict[str, Any]:
    import torch

    on_gpu = torch.cuda.is_initialized()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "seconds": round(time.monotonic() - started, 3),
        # macOS counts bytes, Linux KiB.
        "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20, 1)
        if on_gpu
        else None,
    }
