"""Determine what a run would do, without running anything."""

from dataclasses import dataclass
from typing import Literal

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results.result_file import Result, obstacle, read_result
from lowbit.benchmark.scheduling.estimate import UNKNOWN, Estimate, Estimator
from lowbit.benchmark.scheduling.schedule import Schedule

State = Literal["finished", "new", "blocked", "skipped"]


@dataclass(frozen=True)
class Preview:
    """One job of a plan, and what a run would do with it.

    Attributes:
        job: the job.
        state: finished (its result stays), new (it would run), blocked (it cannot) or skipped (its
            data is not there).
        note: why it is blocked or skipped, or that it failed before.
        estimate: what a new job would take, or a skipped one if its data came.
    """

    job: Job
    state: State
    note: str = ""
    estimate: Estimate = UNKNOWN


def preview(schedule: Schedule, estimator: Estimator, *, overwrite: str) -> list[Preview]:
    """Return what a run would do with each job of the schedule's plan; nothing is written."""
    found: dict[str, Preview] = {}
    for job in schedule.plan.jobs.values():
        result = read_result(schedule.folder(job))
        found[job.id] = Preview(job, *_state(job, result, overwrite, schedule, found))
    by_state = {s: [r.job for r in found.values() if r.state == s] for s in ("new", "skipped")}
    estimates = estimator.estimate_all([*by_state["new"], *by_state["skipped"]])
    return [
        Preview(row.job, row.state, row.note, estimates.get(row.job.id, UNKNOWN))
        for row in found.values()
    ]


def _state(
    job: Job,
    result: Result | None,
    overwrite: str,
    schedule: Schedule,
    found: dict[str, Preview],
) -> tuple[State, str]:
    if result is not None and overwrite != "always" and result.status == "completed":
        return "finished", ""
    if result is not None and overwrite == "never":
        return "finished", f"{result.status}: {result.reason}"
    if result is None and (why := obstacle(schedule.folder(job))):
        return "blocked", why
    if job.problem is not None:
        return "blocked", job.problem
    if job.missing is not None:
        return "skipped", job.missing
    for need in job.needs:
        if need in found:
            if found[need].state in ("blocked", "skipped"):
                return found[need].state, found[need].note
            if found[need].note and overwrite == "never":
                return "blocked", f"needs job {need}, which failed and is not to run again"
        else:
            made = read_result(schedule.runs_dir / need)
            if made is None or made.status != "completed":
                return "blocked", f"needs job {need}, which is left out and has not completed"
    return "new", f"{result.status} before" if result is not None else ""
