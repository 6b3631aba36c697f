"""Jobs on this machine: one process a job, several at once.

Processes are forked from a server that has imported torch and run nothing, so that a job starts in
milliseconds, and a job that runs out of memory or crashes costs only itself. Each has a pipe to
its runner whose end tells it that the runner is gone.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from benchmark import outcome
from benchmark.claim import HEARTBEAT, Claim
from benchmark.executors import StoppedError, worker
from benchmark.executors.processes import (
    SERVER_LOST,
    describe_death,
    signal_group,
    start,
    start_server,
)
from benchmark.job import Job
from benchmark.results import Result, read_result, write_result
from benchmark.schedule import Schedule

_POLL = 0.5  # s that a signal to all processes may come later to this one
_PATIENCE = 3.0  # s a process has to end after SIGTERM

_logger = logging.getLogger(__name__)


@dataclass
class _Running:
    job: Job
    claim: Claim
    process: ForkServerProcess
    lifeline: connection.Connection
    slot: int
    folder: Path
    inputs: dict[str, Path]


def run(
    schedule: Schedule,
    *,
    workers: int | None = None,
    report: Callable[[Job, Result], None] = lambda job, result: None,
) -> None:
    """Run every job of `schedule` that can run.

    Args:
        schedule: what to run.
        workers: processes at once; None: one a GPU, or one a core where there is none.
        report: called with each job that ends here.

    Raises:
        StoppedError: SIGINT or SIGTERM came. Processes are ended, claims given back; jobs that had not
            ended have no result and go on from their last state next time.
    """
    with _stop_signals() as stop:
        runner = _Runner(schedule, workers, report)
        try:
            while True:
                runner.fill()
                if not schedule.open:
                    return
                runner.wait(stop)
                if stop.signum:
                    raise StoppedError(stop.signum)
                runner.reap(stop)
        finally:
            runner.end()


def usual_workers() -> int:
    """Return how many jobs run at once unless told otherwise: one a GPU, else one a core."""
    return len(_gpus()) or _cores()


class _Runner:
    """Owns the processes and claims of one `run`."""

    def __init__(self, schedule: Schedule, workers: int | None, report: Callable):
        self._schedule = schedule
        self._report = report
        self._workers = workers or usual_workers()
        self._gpus = _gpus()
        self._threads = _threads(_cores(), self._workers)
        self._running: dict[str, _Running] = {}
        self._stages = sorted({job.stage for job in schedule.plan.jobs.values()})
        self._context: ForkServerContext | None = None

    def fill(self) -> None:
        """Start what can start, settle what needs no process."""
        while free := self._workers - len(self._running):
            ready = self._schedule.ready(free)
            if not ready:
                return
            for job in ready:
                self._begin(job)

    def wait(self, stop: "_StopSignal") -> None:
        """Sleep until a process ends, a signal comes or it is time to look around."""
        timeout = min(HEARTBEAT, self._schedule.pause)
        connection.wait([stop.pipe, *(r.process.sentinel for r in self._running.values())], timeout)
        for running in list(self._running.values()):
            if running.claim.beat() and not running.claim.held:
                _logger.warning("Job %s was taken over by another runner.", running.job.id)
                self._close(running)
                self._schedule.leave(running.job)

    def reap(self, stop: "_StopSignal") -> None:
        """Take the results of the processes that have ended."""
        for running in [r for r in self._running.values() if not r.process.is_alive()]:
            result = read_result(running.folder)
            if result is None:
                code = running.process.exitcode
                if code in (-signal.SIGTERM, -signal.SIGINT, SERVER_LOST, os.EX_TEMPFAIL):
                    # A batch system signals every process; ours may just come last.
                    connection.wait([stop.pipe], _POLL)
                    if stop.signum:
                        raise StoppedError(stop.signum)
                if code == os.EX_TEMPFAIL:
                    _logger.info("Job %s was stopped and goes on from its state.", running.job.id)
                    self._close(running)
                    self._schedule.leave(running.job)
                    continue
                reason = describe_death(code)
                result = outcome.failed(
                    running.job, reason, inputs=running.inputs, folder=running.folder
                )
                write_result(running.folder, result)
            self._close(running)
            self._schedule.finish(running.job, result)
            self._report(running.job, result)

    def end(self) -> None:
        """End every process and give its claim back."""
        for running in self._running.values():
            signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        for running in list(self._running.values()):
            running.process.join(max(0.0, deadline - time.monotonic()))
            self._close(running)

    def _begin(self, job: Job) -> None:
        """Claim a job and start it, or settle it."""
        claim = Claim.take(self._schedule.folder(job))
        if claim is None:
            if job.id not in self._schedule.elsewhere:
                _logger.info("Another runner has job %s (%s).", job.id, job.title)
            self._schedule.leave(job)
            return
        try:
            result = self._schedule.standing(job)  # another runner may have ended it just now
            if result is None and (result := self._schedule.refusal(job)) is not None:
                write_result(self._schedule.folder(job), result)
            if result is None:
                self._start(job, claim)
                return
        except BaseException:
            if job.id not in self._running:
                claim.release()
            raise
        claim.release()
        self._schedule.finish(job, result)
        self._report(job, result)

    def _start(self, job: Job, claim: Claim) -> None:
        slot = min(set(range(self._workers)) - {r.slot for r in self._running.values()})
        folder = self._schedule.prepare(job)
        task = worker.Task(
            job=job,
            inputs=self._schedule.inputs(job),
            folder=folder.resolve(),
            token=claim.token,
            threads=self._threads,
            gpu=self._gpus[slot % len(self._gpus)] if self._gpus else None,
        )
        self._context = self._context or start_server(self._threads, self._stages)
        receiver, lifeline = self._context.Pipe(duplex=False)
        process = self._context.Process(target=worker.main, args=(task, receiver), name=job.id)
        start(process)
        receiver.close()
        running = _Running(job, claim, process, lifeline, slot, folder, dict(task.inputs))
        self._running[job.id] = running
        claim.name_worker(process.pid)
        with contextlib.suppress(BrokenPipeError):  # it died already; `reap` will tell
            lifeline.send_bytes(b"go")
        self._schedule.start(job)

    def _close(self, running: _Running) -> None:
        signal_group(running.process, signal.SIGKILL)
        running.process.join()
        running.lifeline.close()
        running.claim.release()
        del self._running[running.job.id]


class _StopSignal:
    """Whether SIGINT or SIGTERM came; `pipe` becomes readable then."""

    def __init__(self):
        self.signum = 0
        self.pipe, self._sender = os.pipe()

    def __call__(self, signum: int, frame: object) -> None:
        self.signum = signum
        os.write(self._sender, b"!")

    def close(self) -> None:
        os.close(self.pipe)
        os.close(self._sender)


@contextlib.contextmanager
def _stop_signals() -> Iterator[_StopSignal]:
    """Note SIGINT and SIGTERM within the block, where no code can be torn apart by them."""
    stop = _StopSignal()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpus() -> list[str]:
    """Return the GPUs this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (
        [v.strip() for v in visible.split(",")][:count] if visible else list(map(str, range(count)))
    )


def _threads(cores: int, workers: int) -> int:
    """Return a job's share of the cores, or fewer where OMP_NUM_THREADS says so."""
    share = max(1, cores // workers)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdecimal() and int(limit) > 0 else share
