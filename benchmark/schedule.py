"""Which job is next, and what becomes of it without running: kept, refused or skipped.

A schedule is one runner's view of a plan. The truth is in the result files, which other runners
write too; the schedule reads them when a job's turn comes, and again once the job is claimed.
"""

import logging
import shutil
from pathlib import Path
from typing import Literal

import yaml

from benchmark import outcome
from benchmark.claim import LOCK
from benchmark.files import file_sha256, write_text
from benchmark.job import File, Job, Output
from benchmark.recipe import STAGES
from benchmark.results import RESULT, Result, read_result, write_result
from benchmark.sweep import Plan

Overwrite = Literal["never", "failed", "always"]

_logger = logging.getLogger(__name__)


class Schedule:
    """The jobs of a plan that still have to end, and the results of those that did.

    Attributes:
        done: results by job id: kept, made here, or made by another runner meanwhile.
        kept: ids of jobs whose result was there before.
        blocked: reasons by job id, of jobs whose input is neither there nor part of the plan.
    """

    def __init__(self, plan: Plan, runs_dir: Path, *, overwrite: Overwrite = "failed"):
        self.plan = plan
        self.runs_dir = runs_dir
        self.done: dict[str, Result] = {}
        self.kept: set[str] = set()
        self.blocked: dict[str, str] = {}
        self._overwrite = overwrite
        self._needed = plan.needed
        self._waiting = dict(plan.jobs)
        self._running: set[str] = set()
        self._elsewhere: set[str] = set()
        self._examined: set[str] = set()
        self._before = {job_id: self._signature(job_id) for job_id in plan.jobs}

    @property
    def open(self) -> bool:
        """Whether any job has yet to end."""
        return bool(self._waiting)

    @property
    def elsewhere(self) -> set[str]:
        """Ids of jobs that another runner holds."""
        return set(self._elsewhere)

    def folder(self, job: Job) -> Path:
        """Return the job's folder."""
        return self.runs_dir / job.id

    def ready(self) -> list[Job]:
        """Return the jobs that may run now: those others need first, then the cheap stages.

        Jobs whose result stands are settled on the way.
        """
        ready = []
        for job in list(self._waiting.values()):
            if job.id in self._running or not self._inputs_ended(job):
                continue
            if job.id not in self._examined and (result := self.standing(job)):
                self.kept.add(job.id)
                self.finish(job, result)
            elif job.id in self._waiting:
                self._examined.add(job.id)
                ready.append(job)
        return sorted(ready, key=lambda job: (job.id not in self._needed, STAGES.index(job.stage)))

    def standing(self, job: Job) -> Result | None:
        """Return the result on disk if there is no reason to run the job again."""
        result = read_result(self.folder(job))
        if result is None:
            return None
        fresh = self._signature(job.id) != self._before[job.id]  # another runner's, of just now
        if self._overwrite == "always" and not fresh:
            return None
        if result.status != "completed":
            return result if fresh or self._overwrite == "never" else None
        if not self._reads_the_same(job, result) or not self._outputs_there(job, result):
            return None
        if result.checkpoint.name != job.label.checkpoint:  # renamed in the suite
            facts = result.checkpoint.model_copy(update={"name": job.label.checkpoint})
            result = result.model_copy(update={"checkpoint": facts, "question": job.question})
            write_result(self.folder(job), result)
        return result

    def refusal(self, job: Job) -> Result | None:
        """Return the result of a job that cannot run: its problem, an input's, or missing data."""
        for need in job.needs:
            source = self.done[need]
            if source.status != "completed":
                return outcome.skipped(job, _why_skipped(source))
        problem = job.problem or self._changed_file(job)
        if problem is None:
            return outcome.skipped(job, job.missing) if job.missing else None
        return outcome.failed(job, problem, inputs={}, folder=self.folder(job))

    def inputs(self, job: Job) -> dict[str, Path]:
        """Return the files the job reads, by recipe field; its inputs have completed."""
        return {
            name: source.path if isinstance(source, File) else self._output(source)
            for name, source in job.inputs.items()
        }

    def prepare(self, job: Job) -> Path:
        """Make the folder of a claimed job ready for its worker, and return it.

        What a killed or failed run left there is kept, so that the stage resumes; what a
        completed one left is removed, for it would make the stage find everything done.
        """
        folder = self.folder(job)
        old = read_result(folder)
        (folder / RESULT).unlink(missing_ok=True)
        if self._overwrite == "always" or (old is not None and old.status == "completed"):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink(missing_ok=True)
        paths = {name: str(path) for name, path in self.inputs(job).items()}
        text = yaml.safe_dump({**job.recipe, **paths}, sort_keys=False, allow_unicode=True)
        write_text(folder / "recipe.yaml", f"# {job.title} (a {job.stage} recipe)\n{text}")
        return folder

    def start(self, job: Job) -> None:
        """Note that the job runs here."""
        self._running.add(job.id)
        self._elsewhere.discard(job.id)

    def leave(self, job: Job) -> None:
        """Note that another runner holds the job; it is looked at again."""
        self._running.discard(job.id)
        self._examined.discard(job.id)
        self._elsewhere.add(job.id)

    def finish(self, job: Job, result: Result) -> None:
        """Note the result of a job."""
        self.done[job.id] = result
        for state in (self._running, self._elsewhere):
            state.discard(job.id)
        self._waiting.pop(job.id, None)

    def _inputs_ended(self, job: Job) -> bool:
        for need in job.needs:
            if need in self.done:
                continue
            if need in self.plan.jobs and need not in self.blocked:
                return False
            made, own = read_result(self.runs_dir / need), read_result(self.folder(job))
            if made is not None and made.status == "completed":
                self.done[need] = made
            elif own is not None and own.status == "completed":
                self.kept.add(job.id)
                self.finish(job, own)
                return False
            else:
                self.blocked[job.id] = (
                    f"It needs job {need}, which has not completed and is left out of this run."
                )
                del self._waiting[job.id]
                return False
        return True

    def _reads_the_same(self, job: Job, result: Result) -> bool:
        """Whether the outputs of other jobs are still what the result was made from."""
        for name, source in job.inputs.items():
            if not isinstance(source, Output):
                continue
            made = self.done[source.job_id]
            read = result.inputs.get(name)
            if made.status != "completed" or read is None:
                continue
            if made.artifact_sha256.get("checkpoint") != read.sha256:
                _logger.info("%s runs again: job %s has made another file.", job.id, made.job_id)
                return False
        return True

    def _outputs_there(self, job: Job, result: Result) -> bool:
        """Whether the job's files are there, as far as a job that has yet to run needs them."""
        folder = self.folder(job)
        if all((folder / path).is_file() for path in result.artifacts.values()):
            return True
        users = [other for other in self.plan.jobs.values() if job.id in other.needs]
        results = [read_result(self.folder(user)) for user in users]
        return all(r is not None and r.status == "completed" for r in results)

    def _output(self, source: Output) -> Path:
        made = self.done[source.job_id]
        return (self.runs_dir / source.job_id / made.artifacts["checkpoint"]).resolve()

    def _changed_file(self, job: Job) -> str | None:
        for name, source in job.inputs.items():
            if isinstance(source, File) and (
                not source.path.is_file() or file_sha256(source.path) != source.sha256
            ):
                return (
                    f"The {name} file {source.path} has changed since the sweep was planned; the "
                    "job was not started. Run the command again."
                )
        return None

    def _signature(self, job_id: str) -> tuple[int, int] | None:
        try:
            stat = (self.runs_dir / job_id / RESULT).stat()
        except FileNotFoundError:
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
