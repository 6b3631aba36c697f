"""Run one job on a machine of a cluster: take over its claim and supervise its process.

The lock then names processes of this machine, where it can be checked whether they are alive, and
this machine sends the heartbeat: if it dies, any runner can take over its jobs.
"""

import os
import signal
import time
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess

from lowbit.benchmark.executors.disk_space import NO_SPACE, NoSpaceError
from lowbit.benchmark.executors.job_process import (
    SERVER_LOST,
    describe_death,
    signal_group,
    start_job,
    start_server,
)
from lowbit.benchmark.executors.worker import Task
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import HEARTBEAT, Claim, host_name
from lowbit.benchmark.results.result_file import Result, read_result, write_result

GRACE = 30.0  # s a job has to save its state once it is told to stop
_GLANCE = 0.2  # s between checks: a cancelled task is interrupted between two of them
_VISIBLE = 30.0  # s until files written by one machine must be visible to another


class LostError(Exception):
    """The machine ended a job through no fault of the job; it may run again elsewhere."""


def supervise(task: Task) -> Result | None:
    """Run a job in its own process.

    Returns:
        Its result; None if it saved its state to resume later, or if another runner has the claim.

    Raises:
        FileNotFoundError: this machine does not see the runs folder.
        LostError: somebody on this machine ended the process.
        NoSpaceError: a disk of this machine is full.
        KeyboardInterrupt: it was told to stop; the job was stopped, with time to save its state.
    """
    claim = _inherit(task)
    if claim is None:
        return None
    try:
        context = start_server(task.threads, [task.job.stage])
        process, lifeline = start_job(context, task, claim)
        try:
            lost = _watch(process, claim)
        except KeyboardInterrupt:
            _stop(process)
            raise
        finally:
            signal_group(process, signal.SIGKILL)  # its children too
            process.join()
            lifeline.close()
        return None if lost else _ending(task, process.exitcode)
    finally:
        claim.release()


def _inherit(task: Task) -> Claim | None:
    deadline = time.monotonic() + _VISIBLE
    while True:
        if task.folder.is_dir() and (claim := Claim.inherit(task.folder, task.token)):
            return claim
        if time.monotonic() > deadline:
            break
        time.sleep(_GLANCE)
    if not task.folder.is_dir():
        raise FileNotFoundError(
            f"{host_name().split()[0]} sees no folder {task.folder}, which the runner made; the job "
            "was not started. Put --runs-dir on a file system that all machines of the cluster share, "
            "under the same path."
        )
    return None


def _watch(process: ForkServerProcess, claim: Claim) -> bool:
    """Wait for the process to end while sending heartbeats; return whether the claim was lost."""
    look = 0.0
    while not connection.wait([process.sentinel], _GLANCE):
        if time.monotonic() >= look:
            claim.beat()
            if not claim.held:
                return True
            look = time.monotonic() + HEARTBEAT / 2
    return False


def _stop(process: ForkServerProcess) -> None:
    """Let the job save its state and exit; may be cancelled repeatedly."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal_group(process, signal.SIGTERM)
        process.join(GRACE)
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(task: Task, code: int | None) -> Result | None:
    result = read_result(task.folder)
    if result is not None or code == os.EX_TEMPFAIL:
        return result
    reason = describe_death(code)
    if code in (-signal.SIGTERM, -signal.SIGINT, SERVER_LOST):
        raise LostError(reason)
    if code == NO_SPACE:
        raise NoSpaceError(task.folder)
    result = build_result.failed(task.job, reason, inputs=task.inputs, folder=task.folder)
    write_result(task.folder, result)
    return result
