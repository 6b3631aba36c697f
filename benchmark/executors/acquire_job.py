"""Acquire a job: lock it, check its result again, and settle it if it needs no process."""

import logging

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import Claim
from lowbit.benchmark.results.result_file import Result, write_result
from lowbit.benchmark.scheduling.schedule import Schedule

_logger = logging.getLogger(__name__)


def claim_job(schedule: Schedule, job: Job, *, problem: str | None = None) -> Claim | Result | None:
    """Claim a job that is ready.

    Args:
        schedule: the job's schedule.
        job: the job.
        problem: why this runner cannot run it; without a result, the job then fails.

    Returns:
        The claim for running it; or its result, if there is nothing to run; or None while another
        runner has it.
    """
    claim = Claim.take(schedule.folder(job))
    if claim is None:
        if job.id not in schedule.elsewhere:
            _logger.info("Another runner has job %s (%s).", job.id, job.title)
        schedule.leave(job)
        return None
    try:
        result = schedule.standing(job)  # another runner may have ended it just now
        if result is None:
            result = schedule.refusal(job)
            if result is None and problem is not None:
                folder = schedule.folder(job)
                result = build_result.failed(
                    job, problem, inputs=schedule.inputs(job), folder=folder
                )
            if result is not None:
                write_result(schedule.folder(job), result)
    except BaseException:
        claim.release()
        raise
    if result is None:
        return claim
    claim.release()
    schedule.finish(job, result)
    return result
