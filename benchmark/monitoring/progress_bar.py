"""Progress of a running sweep: a bar on a terminal or lines in a log, with the time left."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lowbit.benchmark.monitoring import job_messages
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.scheduling.estimate import Estimator
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.common.text import duration

_PAUSE = 5.0  # s between estimates of the time left
_LINE = 60.0  # s between progress lines in a log

_logger = logging.getLogger(__name__)


class Progress:
    """Shows the jobs of a schedule as they end; `report` is what an executor calls.

    Args:
        schedule: what is run.
        estimator: updated with each job that ends.
        workers: jobs at a time.
        bar: the bar on a terminal.
    """

    def __init__(
        self, schedule: Schedule, estimator: Estimator, *, workers: int, bar: tqdm
    ) -> None:
        self._schedule, self._estimator = schedule, estimator
        self._workers, self._bar = workers, bar
        self._failed = 0
        self._left: float | None = None
        self._estimated, self._told = -_PAUSE, time.monotonic()

    def report(self, job: Job, result: Result) -> None:
        """Show how a job ended, and the progress of the sweep."""
        self._estimator.learn(result)
        self._failed += result.status == "failed"
        done, total = len(self._schedule.done), len(self._schedule.plan.jobs)
        _logger.info("[%d/%d] %s", done, total, job_messages.describe_ending(job, result))
        now = time.monotonic()
        if now - self._estimated >= _PAUSE:
            self._left = self.seconds_left()
            self._estimated = now
        if self._bar.disable and self._left is not None and now - self._told >= _LINE:
            _logger.info("%s", self._facts())
            self._told = now
        self.show()

    def show(self) -> None:
        """Update the bar."""
        self._bar.set_postfix_str(self._facts(), refresh=False)
        self._bar.update(len(self._schedule.done) - self._bar.n)

    def seconds_left(self) -> float | None:
        """Return the estimated time of the unfinished jobs; None if none can be estimated."""
        open_jobs = self._schedule.unfinished
        known = [
            estimate.seconds
            for estimate in self._estimator.estimate_all(open_jobs).values()
            if estimate.seconds is not None
        ]
        if not known:
            return None
        mean = sum(known) / len(known)
        return mean * len(open_jobs) / min(self._workers, len(open_jobs))

    def _facts(self) -> str:
        facts = [f"{len(self._schedule.running)} running"]
        facts += [f"{self._failed} failed"] if self._failed else []
        facts += [f"about {duration(self._left)} left"] if self._left is not None else []
        return ", ".join(facts)


@contextlib.contextmanager
def progress(schedule: Schedule, estimator: Estimator, *, workers: int) -> Iterator[Progress]:
    """Show the progress of a run within the block; the log's lines scroll above the bar."""
    with tqdm(
        total=len(schedule.plan.jobs),
        unit="job",
        disable=not sys.stderr.isatty(),
        bar_format="{bar:20} {n}/{total} jobs{postfix}",
        dynamic_ncols=True,
    ) as bar:
        shown = Progress(schedule, estimator, workers=workers, bar=bar)
        with logging_redirect_tqdm() if not bar.disable else contextlib.nullcontext():
            shown.show()
            yield shown
            shown.show()
