"""The progress of a sweep from its files, for another terminal, another machine, or a script.

It reads the plans (`suite-*.json`), the result files and the locks. It writes nothing and does not
contact the runners, so it also works for sweeps on other machines with a shared file system.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lowbit.benchmark.planning.plan_file import PlannedJob, PlannedSuite
from lowbit.benchmark.results.job_lock import live_holder
from lowbit.benchmark.results.result_file import RESULT, Result, read_result

State = Literal["completed", "failed", "skipped", "running", "waiting"]
STATES: tuple[State, ...] = ("completed", "running", "waiting", "failed", "skipped")


@dataclass(frozen=True)
class JobStatus:
    """One planned job.

    Attributes:
        job: what was planned.
        state: state according to its files.
        result: result of a job that ended.
        host, minutes: where a running job runs, and for how long.
        ended: when its result was written, s since the epoch.
    """

    job: PlannedJob
    state: State
    result: Result | None = None
    host: str | None = None
    minutes: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class SuiteStatus:
    """The jobs of one suite, in the order of its plan."""

    name: str
    jobs: tuple[JobStatus, ...]

    def of(self, state: State) -> list[JobStatus]:
        """Return the jobs in one state."""
        return [job for job in self.jobs if job.state == state]

    @property
    def last(self) -> list[JobStatus]:
        """The jobs that ended, the last first."""
        ended = [job for job in self.jobs if job.ended is not None]
        return sorted(ended, key=lambda job: -job.ended)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left at the pace so far; None: nothing runs or none has completed.

        A waiting job is assumed to take as long as the completed ones of its stage, or else of all
        stages, with as many jobs at a time as now.
        """
        running, waiting = self.of("running"), self.of("waiting")
        by_stage: dict[str, list[float]] = {}
        for job in self.of("completed"):
            if job.result.seconds is not None:
                by_stage.setdefault(job.job.stage, []).append(job.result.seconds)
        if not running or not by_stage:
            return None
        everything = [seconds for stage in by_stage.values() for seconds in stage]
        left = 0.0
        for job in [*running, *waiting]:
            known = by_stage.get(job.job.stage, everything)
            left += max(0.0, sum(known) / len(known) - 60 * (job.minutes or 0.0))
        return left / len(running)


class Reader:
    """Reads statuses repeatedly; an unchanged result file is parsed only once."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._parsed: dict[str, tuple[tuple[int, int], Result | None]] = {}

    def read(self, suite: PlannedSuite) -> SuiteStatus:
        """Return the current state of a suite's jobs."""
        now = time.time()
        return SuiteStatus(suite.name, tuple(self._job(job, now) for job in suite.jobs))

    def _job(self, job: PlannedJob, now: float) -> JobStatus:
        folder = self._runs_dir / job.id
        holder = live_holder(folder)
        if holder is not None:
            host = holder.host.partition(" ")[0]
            return JobStatus(job, "running", host=host, minutes=_minutes(folder, now))
        try:
            stat = (folder / RESULT).stat()
        except OSError:
            return JobStatus(job, "waiting")
        version = (stat.st_mtime_ns, stat.st_ino)
        if self._parsed.get(job.id, (None,))[0] != version:
            self._parsed[job.id] = (version, read_result(folder))
        result = self._parsed[job.id][1]
        if result is None:
            return JobStatus(job, "waiting")
        return JobStatus(job, result.status, result=result, ended=stat.st_mtime)


def as_json(status: SuiteStatus) -> dict[str, Any]:
    """Return a status as plain data."""
    return {
        "suite": status.name,
        "counts": {state: len(status.of(state)) for state in STATES},
        "seconds_left": status.seconds_left,
        "jobs": [_plain(job) for job in status.jobs],
    }


def _plain(job: JobStatus) -> Mapping[str, Any]:
    facts = {
        "id": job.job.id,
        "stage": job.job.stage,
        "title": job.job.title,
        "state": job.state,
        "reason": job.result.reason if job.result else None,
        "seconds": job.result.seconds if job.result else None,
        "host": job.host,
        "minutes": job.minutes and round(job.minutes, 1),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _minutes(folder: Path, now: float) -> float | None:
    """Return when a job started: its recipe is written just before."""
    try:
        return max(0.0, now - (folder / "recipe.yaml").stat().st_mtime) / 60
    except OSError:  # claimed, not started
        return None
