"""Order the jobs that are ready to run: those that others need first, then the cheap stages.

Jobs that would compute the same shared part do not start together while there are others. A job held
by another runner is tried again after a growing pause.
"""

import bisect
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.results.result_file import Result

_LOOK, _PATIENCE = (
    0.5,
    10.0,
)  # s between checks of a job that another runner holds, at first and at most
_SHARED = ("dataset", "image_size", "policy_fingerprint", "fp_start")


class JobQueue:
    """The order of one runner's jobs; it reads no file.

    Args:
        jobs: all of them, in the order of the plan.
        needed: ids of those whose outputs others read.
    """

    def __init__(self, jobs: Iterable[Job], needed: Collection[str]) -> None:
        self._places: dict[str, tuple[bool, int, int]] = {}
        self._jobs: dict[tuple[bool, int, int], Job] = {}
        self._what: dict[str, tuple[str, ...] | None] = {}
        for number, job in enumerate(jobs):
            place = (job.id not in needed, STAGES.index(job.stage), number)
            self._places[job.id], self._jobs[place] = place, job
            self._what[job.id] = shared_by(job)
        self._ready: list[tuple[bool, int, int]] = []  # places, sorted
        self._running: set[str] = set()
        self._elsewhere: dict[
            str, tuple[float, float]
        ] = {}  # time of the next check, and the pause before it
        self._computing: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._computed: set[tuple[str, ...]] = set()

    @property
    def running(self) -> set[str]:
        """Ids of the jobs running here."""
        return set(self._running)

    @property
    def elsewhere(self) -> set[str]:
        """Ids of jobs that another runner holds."""
        return set(self._elsewhere)

    @property
    def pause(self) -> float:
        """Seconds until a job of another runner should be checked; infinite if there is none."""
        looks = (then for then, _ in self._elsewhere.values())
        return max(0.0, min(looks, default=math.inf) - time.monotonic())

    def add(self, job: Job) -> None:
        """Add a job that may run from now on."""
        bisect.insort(self._ready, self._places[job.id])

    def next(self, limit: int | None = None) -> list[Job]:
        """Return the jobs to run next, at most `limit`; None returns all that may run."""
        chosen: list[Job] = []
        deferred: list[Job] = []
        begun = {what for what, jobs in self._computing.items() if jobs} - self._computed
        for place in self._ready:
            if limit is not None and len(chosen) >= limit:
                break
            job = self._jobs[place]
            what = self._what[job.id]
            if what in begun:
                deferred.append(job)
                continue
            chosen.append(job)
            if what is not None and what not in self._computed:
                begun.add(what)
        return (chosen + deferred)[:limit]

    def due(self) -> list[str]:
        """Return the jobs of other runners whose pause is over, each once."""
        now = time.monotonic()
        found = [job_id for job_id, (then, _) in self._elsewhere.items() if then <= now]
        for job_id in found:
            self._elsewhere[job_id] = (math.inf, self._elsewhere[job_id][1])
        return found

    def start(self, job: Job) -> None:
        """Record that a job runs here."""
        self._forget(job)
        self._running.add(job.id)
        if (what := self._what[job.id]) is not None:
            self._computing[what].add(job.id)

    def leave(self, job: Job) -> None:
        """Record that another runner holds a job."""
        pause = min(2 * self._elsewhere.get(job.id, (0.0, _LOOK / 2))[1], _PATIENCE)
        self._forget(job)
        self._elsewhere[job.id] = (time.monotonic() + pause, pause)

    def end(self, job: Job, *, completed: bool) -> None:
        """Record that a job has ended."""
        self._forget(job)
        if completed and (what := self._what[job.id]) is not None:
            self._computed.add(what)

    def _forget(self, job: Job) -> None:
        """Remove a job from whichever list it was in."""
        self._running.discard(job.id)
        self._elsewhere.pop(job.id, None)
        if (what := self._what[job.id]) is not None:
            self._computing[what].discard(job.id)
        place = self._places[job.id]
        at = bisect.bisect_left(self._ready, place)
        if at < len(self._ready) and self._ready[at] == place:
            del self._ready[at]


def shared_by(job: Job | Result) -> tuple[str, ...] | None:
    """Return a key of the part that jobs have in common; None if the stage shares nothing.

    The files that hold it are the stage's, under everything they depend on: this is to order jobs and
    to estimate them, and equal only for jobs that may share.
    """
    if job.recipe.get("cache_dir", "") is not None:
        return None
    facts = job.facts
    if isinstance(job, Job):
        inputs = {name: source.content for name, source in job.inputs.items()}
    else:
        made = {name: record.job_id for name, record in job.inputs.items()}
        inputs = {
            name: f"job:{made[name]}" if made[name] else str(record.sha256)
            for name, record in job.inputs.items()
        }
    read = (f"{name}={content}" for name, content in sorted(inputs.items()))
    return (job.stage, *read, *(str(facts.get(name)) for name in _SHARED))
