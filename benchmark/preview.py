"""What a run would do, without doing it."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

from benchmark.job import Job
from benchmark.results import Result, find_results, read_result
from benchmark.schedule import Schedule


@dataclass(frozen=True)
class Preview:
    """One job of a plan, and what would become of it.

    Attributes:
        job: the job.
        state: finished (its result stays), new (it would run), blocked (it cannot) or skipped (its
            data is not there).
        note: why it is blocked, or that it failed before.
        seconds: how long jobs of its recipe took here, the median; None if none has run.
    """

    job: Job
    state: str
    note: str = ""
    seconds: float | None = None


def preview(schedule: Schedule, *, overwrite: str) -> list[Preview]:
    """Say for each job of the schedule's plan what a run would do; nothing is written."""
    times = _times(schedule)
    found: dict[str, Preview] = {}
    for job in schedule.plan.jobs.values():
        result = read_result(schedule.folder(job))
        state, note = _state(job, result, overwrite, schedule, found)
        seconds = times.get((job.stage, job.recipe.get("name"))) if state == "new" else None
        found[job.id] = Preview(job, state, note, seconds)
    return list(found.values())


def _state(
    job: Job,
    result: Result | None,
    overwrite: str,
    schedule: Schedule,
    found: dict[str, Preview],
) -> tuple[str, str]:
    if result is not None and overwrite != "always" and result.status == "completed":
        return "finished", ""
    if result is not None and overwrite == "never":
        return "finished", f"{result.status}: {result.reason}"
    if job.problem is not None:
        return "blocked", job.problem
    if job.missing is not None:
        return "skipped", ""
    for need in job.needs:
        if need in found:
            if found[need].state == "blocked" or (found[need].note and overwrite == "never"):
                return "blocked", f"needs job {need}, which cannot run or failed"
        else:
            made = read_result(schedule.runs_dir / need)
            if made is None or made.status != "completed":
                return "blocked", f"needs job {need}, which is left out and has not completed"
    return "new", f"{result.status} before" if result is not None else ""


def _times(schedule: Schedule) -> dict[tuple[str, str | None], float]:
    """Return the median seconds of the completed jobs of each stage and recipe name."""
    times = defaultdict(list)
    for result in find_results(schedule.runs_dir):
        if result.status == "completed" and result.seconds is not None:
            times[result.stage, result.recipe.get("name")].append(result.seconds)
    return {key: statistics.median(values) for key, values in times.items()}
