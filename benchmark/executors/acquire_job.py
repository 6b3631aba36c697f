"""Acquire a job: lock it, check its result again, and settle it if it needs no process."""

import errno
import logging
import os

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import Claim
from lowbit.benchmark.results.result_file import Result, make_room, write_result
from lowbit.benchmark.scheduling.schedule import Schedule

_logger = logging.getLogger(__name__)


# Errors of one file or folder, as opposed to those of a disk.
_OF_ONE_FILE = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ELOOP)
)


def claim_job(schedule: Schedule, job: Job, *, problem: str | None = None) -> Claim | Result | None:
    """Claim a job that is ready, and prepare its folder.

    Args:
        schedule: the job's schedule.
        job: the job.
        problem: why this runner cannot run it; without a result, the job then fails.

    Returns:
        The claim for running it; or the result that was written here, if there is nothing to run; or
        None: another runner has the job or has ended it, or its folder cannot be used.
    """
    try:
        return _claim(schedule, job, problem)
    except OSError as error:
        if error.errno not in _OF_ONE_FILE or not os.access(schedule.runs_dir, os.W_OK | os.X_OK):
            raise
        schedule.block(
            job,
            f"{error}; the job was not run. Put its folder, {schedule.folder(job)}, in order or "
            "rename it, and run the same command.",
        )
        return None


def _claim(schedule: Schedule, job: Job, problem: str | None) -> Claim | Result | None:
    claim = Claim.take(schedule.folder(job))
    if claim is None:
        if job.id not in schedule.elsewhere:
            _logger.info("Another runner has job %s (%s).", job.id, job.title)
        schedule.leave(job)
        return None
    result, prepared = None, False
    try:
        standing = schedule.standing(job)  # another runner may have ended it just now
        if standing is not None:
            schedule.keep(job, standing)
        elif why := make_room(schedule.folder(job)):
            schedule.block(job, why)
        else:
            result = _settle(schedule, job, problem)
            prepared = result is None
    finally:
        if not prepared:
            claim.release()
    if result is not None:
        schedule.finish(job, result)
    return claim if prepared else result


def _settle(schedule: Schedule, job: Job, problem: str | None) -> Result | None:
    """Write the result of a job that cannot run and return it, or prepare the job's folder."""
    folder = schedule.folder(job)
    result = schedule.refusal(job)
    if result is None and problem is not None:
        result = build_result.failed(job, problem, inputs=schedule.inputs(job), folder=folder)
    if result is None:
        schedule.prepare(job)
    else:
        write_result(folder, result)
    return result
