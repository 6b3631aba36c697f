"""Run jobs on this machine: one process per job, several at a time.

Processes are forked from a server that has only imported torch, so a job starts in milliseconds, and
a job that crashes or runs out of memory affects no other. Each has a pipe to its runner; when it
closes, the job knows that the runner is gone.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from lowbit.benchmark.executors import StoppedError, worker
from lowbit.benchmark.executors.acquire_job import claim_job
from lowbit.benchmark.executors.disk_space import NO_SPACE, NoSpaceError
from lowbit.benchmark.executors.job_process import (
    SERVER_LOST,
    describe_death,
    signal_group,
    start_job,
    start_server,
)
from lowbit.benchmark.executors.resources import (
    Gpus,
    cores,
    processes,
    share_of_threads,
    too_few_gpus,
    visible_gpus,
)
from lowbit.benchmark.executors.stop_signals import StopSignal, stop_signals
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import HEARTBEAT, Claim
from lowbit.benchmark.results.result_file import Result, read_result, write_result
from lowbit.benchmark.scheduling.schedule import Schedule

_POLL = 0.5  # s by which a signal to all processes may reach this one later
_PATIENCE = 3.0  # s a process has to end after SIGTERM

_logger = logging.getLogger(__name__)


@dataclass
class _Running:
    job: Job
    claim: Claim
    process: ForkServerProcess
    lifeline: connection.Connection
    gpus: tuple[str, ...]
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
        workers: processes at a time; None: one per GPU, or one per core without GPUs.
        report: called with each job that ends here.

    Raises:
        StoppedError: SIGINT or SIGTERM arrived. Processes are ended and claims released; unfinished
            jobs have no result and resume from their last state next time.
        NoSpaceError: a disk is full; likewise.
    """
    with stop_signals() as stop:
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
    """Return the default number of jobs at a time: one per GPU, else one per core."""
    return len(visible_gpus()) or cores()


class _Runner:
    """Owns the processes and claims of one `run`."""

    def __init__(self, schedule: Schedule, workers: int | None, report: Callable):
        self._schedule = schedule
        self._report = report
        self._workers = workers or usual_workers()
        self._gpus = Gpus(visible_gpus(), self._workers)
        self._threads = share_of_threads(cores(), self._workers)
        self._running: dict[str, _Running] = {}
        self._stages = sorted({job.stage for job in schedule.plan.jobs.values()})
        self._context: ForkServerContext | None = None

    def fill(self) -> None:
        """Start the jobs that can start, and settle those that need no process."""
        while free := self._workers - len(self._running):
            ready = self._schedule.ready(free)
            if not ready:
                return
            for job in ready:
                gpus = self._gpus.take(processes(job))
                if gpus is None and processes(job) <= len(self._gpus):
                    return  # it is next: smaller jobs could delay it forever
                self._begin(job, gpus)

    def wait(self, stop: StopSignal) -> None:
        """Sleep until a process ends, a signal arrives or the poll interval is over.

        Jobs of other runners are looked at only by a worker that is free to take them over.
        """
        free = len(self._running) < self._workers
        timeout = min(HEARTBEAT, self._schedule.pause) if free else HEARTBEAT
        connection.wait([stop.pipe, *(r.process.sentinel for r in self._running.values())], timeout)
        for running in list(self._running.values()):
            if running.claim.beat() and not running.claim.held:
                _logger.warning("Job %s was taken over by another runner.", running.job.id)
                self._close(running)
                self._schedule.leave(running.job)

    def reap(self, stop: StopSignal) -> None:
        """Take the results of the processes that have ended."""
        for running in [r for r in self._running.values() if not r.process.is_alive()]:
            result = read_result(running.folder)
            if result is None:
                code = running.process.exitcode
                if code in (-signal.SIGTERM, -signal.SIGINT, SERVER_LOST, os.EX_TEMPFAIL):
                    # A batch system signals every process; this one may receive it last.
                    connection.wait([stop.pipe], _POLL)
                    if stop.signum:
                        raise StoppedError(stop.signum)
                if code == NO_SPACE:
                    raise NoSpaceError(running.folder)
                if code == os.EX_TEMPFAIL:
                    _logger.info(
                        "Job %s was stopped and will resume from its state.", running.job.id
                    )
                    self._close(running)
                    self._schedule.leave(running.job)
                    continue
                reason = describe_death(code)
                result = build_result.failed(
                    running.job, reason, inputs=running.inputs, folder=running.folder
                )
                write_result(running.folder, result)
            self._close(running)
            self._schedule.finish(running.job, result)
            self._report(running.job, result)

    def end(self) -> None:
        """End every process and release its claim."""
        for running in self._running.values():
            signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        for running in list(self._running.values()):
            running.process.join(max(0.0, deadline - time.monotonic()))
            self._close(running)

    def _begin(self, job: Job, gpus: tuple[str, ...] | None) -> None:
        """Claim a job and start it, or settle it."""
        problem = None
        if gpus is None:
            count = len(self._gpus)
            problem = too_few_gpus(processes(job), f"this machine has {count}", count)
        begun = None
        try:
            begun = claim_job(self._schedule, job, problem=problem)
            if isinstance(begun, Claim):
                self._start(job, begun, gpus)
        except BaseException:
            if isinstance(begun, Claim):
                begun.release()
            raise
        finally:
            if job.id not in self._running:
                self._gpus.give(gpus or ())
        if isinstance(begun, Result):
            self._report(job, begun)

    def _start(self, job: Job, claim: Claim, gpus: tuple[str, ...]) -> None:
        folder = self._schedule.folder(job)
        task = worker.Task(
            job=job,
            inputs=self._schedule.inputs(job),
            folder=folder.resolve(),
            token=claim.token,
            threads=self._threads,
            gpus=gpus,
        )
        self._context = self._context or start_server(self._threads, self._stages)
        process, lifeline = start_job(self._context, task, claim)
        running = _Running(job, claim, process, lifeline, gpus, folder, dict(task.inputs))
        self._running[job.id] = running
        self._schedule.start(job)

    def _close(self, running: _Running) -> None:
        signal_group(running.process, signal.SIGKILL)
        running.process.join()
        running.lifeline.close()
        running.claim.release()
        self._gpus.give(running.gpus)
        del self._running[running.job.id]
