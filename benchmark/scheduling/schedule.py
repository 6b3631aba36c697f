"""Choose the next job, and settle those that need not run: kept, refused or skipped.

A schedule is one runner's view of a plan. The truth is in the result files, which other runners
write too; the schedule reads them when a job's turn comes, and again once the job is claimed.
"""

import logging
import shutil
from collections import defaultdict, deque
from pathlib import Path
from typing import Literal

from lowbit.benchmark.planning.job import File, Job, Output
from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import LOCK, remove_dead
from lowbit.benchmark.results.result_file import (
    ASIDE,
    RESULT,
    SCHEMA_VERSION,
    Result,
    read_result,
    write_result,
)
from lowbit.benchmark.scheduling.job_queue import JobQueue
from lowbit.common.atomic_file import remove_unfinished
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.yaml_writer import to_yaml

Overwrite = Literal["never", "failed", "always"]

_logger = logging.getLogger(__name__)


class Schedule:
    """The jobs of a plan that have not ended, and the results of those that have.

    Attributes:
        done: results by job id: kept, made here, or made by another runner meanwhile.
        kept: ids of jobs whose result was there before.
        others: ids of jobs that another runner ended meanwhile.
        blocked: reasons by job id, of jobs that have no result and cannot run: an input is neither
            there nor part of the plan, or the folder cannot be used.
    """

    def __init__(self, plan: Plan, runs_dir: Path, *, overwrite: Overwrite = "failed"):
        self.plan = plan
        self.runs_dir = runs_dir
        self.done: dict[str, Result] = {}
        self.kept: set[str] = set()
        self.others: set[str] = set()
        self.blocked: dict[str, str] = {}
        self._overwrite = overwrite
        self._queue = JobQueue(plan.jobs.values(), plan.needed)
        self._users = defaultdict(list)  # ids of the jobs that need a job
        self._lacking: dict[str, int] = {}  # number of its needs that have not ended, by job
        for job in plan.jobs.values():
            own = [need for need in job.needs if need in plan.jobs]
            self._lacking[job.id] = len(own)
            for need in own:
                self._users[need].append(job.id)
        self._waiting = dict(plan.jobs)
        self._unexamined = deque(job_id for job_id, count in self._lacking.items() if not count)
        self._before = {job_id: self._signature(job_id) for job_id in plan.jobs}

    @property
    def open(self) -> bool:
        """Whether any job has not ended."""
        return bool(self._waiting)

    @property
    def elsewhere(self) -> set[str]:
        """Ids of jobs that another runner holds."""
        return self._queue.elsewhere

    @property
    def running(self) -> set[str]:
        """Ids of the jobs running here."""
        return self._queue.running

    @property
    def pause(self) -> float:
        """Seconds until a job that another runner holds should be checked; infinite if there is none."""
        return self._queue.pause

    @property
    def unfinished(self) -> list[Job]:
        """The jobs that have not ended."""
        return list(self._waiting.values())

    def folder(self, job: Job) -> Path:
        """Return the job's folder."""
        return self.runs_dir / job.id

    def ready(self, limit: int | None = None) -> list[Job]:
        """Return jobs that may run now: first those that others need, then cheap stages.

        Of jobs that share what none of them has computed yet, one goes first and the others come
        last. Jobs whose result stands are settled on the way. A job that another runner holds comes
        up again after a pause, which grows.

        Args:
            limit: how many are wanted at most; None: all.
        """
        self._unexamined.extend(self._queue.due())
        self._examine()
        return self._queue.next(limit)

    def standing(self, job: Job) -> Result | None:
        """Return the result on disk if there is no reason to run the job again."""
        result = read_result(self.folder(job))
        if result is None:
            return None
        fresh = self._signature(job.id) != self._before[job.id]  # just written by another runner
        if self._overwrite == "always" and not fresh:
            return None
        if result.status != "completed":
            return result if fresh or self._overwrite == "never" else None
        if not self._has_same_inputs(job, result) or not self._has_outputs(job, result):
            return None
        label = job.label
        names = {
            "name": label.checkpoint,
            "pretraining": label.pretraining,
            "pretrain_seed": label.pretrain_seed,
        }
        if any(getattr(result.checkpoint, name) != value for name, value in names.items()):
            facts = result.checkpoint.model_copy(update=names)  # renamed in the suite
            written = {"schema_version": SCHEMA_VERSION, "question": job.question}
            result = result.model_copy(update={"checkpoint": facts, **written})
            write_result(self.folder(job), result)
        return result

    def refusal(self, job: Job) -> Result | None:
        """Return the result of a job that cannot run: its problem, an input's, or missing data."""
        for need in job.needs:
            source = self.done[need]
            if source.status != "completed":
                return build_result.skipped(job, _why_skipped(source))
        problem = job.problem or self._changed_file(job) or self._absent_output(job)
        if problem is None:
            return build_result.skipped(job, job.missing) if job.missing else None
        return build_result.failed(job, problem, inputs={}, folder=self.folder(job))

    def inputs(self, job: Job) -> dict[str, Path]:
        """Return the files the job reads, by recipe field; its inputs have completed."""
        return {
            name: source.path if isinstance(source, File) else self._output(source)
            for name, source in job.inputs.items()
        }

    def prepare(self, job: Job) -> Path:
        """Make the folder of a claimed job ready for its worker, and return it.

        What a killed or failed run left there is kept, so that the stage resumes, but for files that
        it had not finished; what a completed one left is removed, for it would make the stage find
        everything done.
        """
        folder = self.folder(job)
        old = read_result(folder)
        (folder / RESULT).unlink(missing_ok=True)
        remove_unfinished(folder)
        if self._overwrite == "always" or (old is not None and old.status == "completed"):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK and not path.name.startswith(ASIDE):
                    path.unlink(missing_ok=True)
        paths = {name: str(path) for name, path in self.inputs(job).items()}
        text = to_yaml({**job.recipe, **paths})
        # For people to read; the plan is authoritative, so nothing waits for the disk here.
        (folder / "recipe.yaml").write_text(f"# {job.title} (a {job.stage} recipe)\n{text}")
        return folder

    def start(self, job: Job) -> None:
        """Record that the job runs here."""
        self._queue.start(job)

    def leave(self, job: Job) -> None:
        """Record that another runner holds the job; it will be checked again."""
        self._queue.leave(job)

    def finish(self, job: Job, result: Result) -> None:
        """Record the result of a job."""
        self.done[job.id] = result
        self._queue.end(job, completed=result.status == "completed")
        self._end(job)

    def keep(self, job: Job, result: Result) -> None:
        """Record a result that stands: from before, or of another runner."""
        fresh = self._signature(job.id) != self._before[job.id]
        (self.others if fresh else self.kept).add(job.id)
        remove_dead(self.folder(job))
        self.finish(job, result)

    def block(self, job: Job, why: str) -> None:
        """Record why a job cannot run although it has no result."""
        self.blocked[job.id] = why
        self._queue.end(job, completed=False)
        self._end(job)

    def _end(self, job: Job) -> None:
        """Remove a job; those that waited only for it are checked next."""
        if self._waiting.pop(job.id, None) is None:
            return
        for user in self._users[job.id]:
            self._lacking[user] -= 1
            if not self._lacking[user]:
                self._unexamined.append(user)

    def _examine(self) -> None:
        """Settle jobs whose needs have ended and whose result is still valid; the others are ready."""
        while self._unexamined:
            job = self.plan.jobs[self._unexamined.popleft()]
            if job.id not in self._waiting or not self._inputs_ended(job):
                continue
            if (result := self.standing(job)) is not None:
                self.keep(job, result)
            else:
                self._queue.add(job)

    def _inputs_ended(self, job: Job) -> bool:
        """Whether the job's needs have results; a job without one is kept or blocked."""
        for need in job.needs:
            if need in self.done:
                continue
            made, own = read_result(self.runs_dir / need), read_result(self.folder(job))
            if made is not None and made.status == "completed":
                self.done[need] = made
            elif own is not None and own.status == "completed":
                self.keep(job, own)
                return False
            else:
                why = "has not completed and is left out of this run."
                if need in self.blocked:
                    why = f"was not run: {self.blocked[need]}"
                self.block(job, f"It needs job {need}, which {why}")
                return False
        return True

    def _has_same_inputs(self, job: Job, result: Result) -> bool:
        """Whether the outputs of other jobs are still what the result was made from."""
        for name, source in job.inputs.items():
            if not isinstance(source, Output):
                continue
            made = self.done[source.job_id]
            read = result.inputs.get(name)
            if made.status != "completed" or read is None:
                continue
            if made.artifact_sha256.get(source.artifact) != read.sha256:
                _logger.info("%s runs again: job %s has made another file.", job.id, made.job_id)
                return False
        return True

    def _has_outputs(self, job: Job, result: Result) -> bool:
        """Whether the job's outputs exist, or every job that needs them has completed."""
        folder = self.folder(job)
        if all((folder / path).is_file() for path in result.artifacts.values()):
            return True
        results = [read_result(self.runs_dir / user) for user in self._users[job.id]]
        return all(r is not None and r.status == "completed" for r in results)

    def _output(self, source: Output) -> Path:
        made = self.done[source.job_id]
        return (self.runs_dir / source.job_id / made.artifacts[source.artifact]).resolve()

    def _absent_output(self, job: Job) -> str | None:
        for source in job.inputs.values():
            if isinstance(source, Output) and (
                source.artifact not in (made := self.done[source.job_id]).artifacts
            ):
                return (
                    f"Job {made.job_id} ({made.stage}, {made.checkpoint.name}) has left no "
                    f"{source.artifact}; the job was not started. If an earlier version ran it, run it "
                    "again: remove its folder, and give the same command."
                )
        return None

    def _changed_file(self, job: Job) -> str | None:
        for name, source in job.inputs.items():
            if not isinstance(source, File) or source.sha256 is None:
                continue  # an absent one was reported as the job's problem or as missing
            if not source.path.is_file() or file_sha256(source.path) != source.sha256:
                return (
                    f"The {name} file {source.path} has changed since the sweep was planned; the "
                    "job was not started. Run the command again."
                )
        return None

    def _signature(self, job_id: str) -> tuple[int, int] | None:
        try:
            stat = (self.runs_dir / job_id / RESULT).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino


def _why_skipped(source: Result) -> str:
    if source.status == "skipped":
        return source.reason or ""  # names the job that failed in the first place
    said = (source.reason or "").partition("\n")[0]
    return (
        f"Not run: {source.stage} job {source.job_id} ({source.checkpoint.name}) failed, and this "
        f"job reads what it makes. It said: {said}"
    )
