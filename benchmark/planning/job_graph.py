"""Collect the jobs of a plan from its suites, each once."""

import logging
from dataclasses import dataclass, field, replace

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.recipes.errors import RecipeError

_logger = logging.getLogger(__name__)


@dataclass
class Graph:
    """The jobs and checkpoints that suites add while a plan is made.

    Attributes:
        jobs: by id.
        contents: the weights behind each checkpoint name.
        spared: jobs that an excluded job would have needed.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    spared: set[str] = field(default_factory=set)

    def add(self, job: Job) -> str:
        """Add a job, or its published numbers to the same job, and return its id."""
        known = self.jobs.setdefault(job.id, job)
        if known.published is None and job.published is not None:
            self.jobs[job.id] = replace(known, published=job.published)
        elif job.published not in (None, known.published):
            raise RecipeError(
                f"The job {job.title!r} is planned twice, to reproduce {dict(known.published)} and "
                f"{dict(job.published)}; nothing was run. Name all of it under one entry's `published`."
            )
        return job.id

    def name(self, checkpoint: str, content: str) -> None:
        """Record the weights behind a checkpoint name, which must be unique on a board."""
        known = self.contents.get(checkpoint)
        if known not in (None, content):
            raise RecipeError(
                f"Two suites use the name {checkpoint!r} for different weights, and a board could not tell them "
                "apart; nothing was run. Give one of them another name."
            )
        if known is None:
            for other in (name for name, what in self.contents.items() if what == content):
                _logger.warning(
                    "The checkpoints %s and %s are the same; they are scored once, as %s.",
                    other,
                    checkpoint,
                    other,
                )
        self.contents[checkpoint] = content

    def useful(self) -> list[Job]:
        """Return the jobs, without pretraining for checkpoints whose uses are all excluded."""
        needed = {need for job in self.jobs.values() for need in job.needs}
        idle = self.spared - needed
        return [j for j in self.jobs.values() if j.stage != "pretrain" or j.id not in idle]
