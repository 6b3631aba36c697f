"""Plan files: one per suite, beside the jobs' folders.

    runs/suite-<name>.json     the jobs of a suite, which numbers each is to reproduce, and which
                               published numbers the board shows beside

With it, the board can show cells without a job so far, and name the suite that fills them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.published import Selection
from lowbit.common.atomic_file import write_text

SCHEMA_VERSION = 1
_SUITE = "suite-"


@dataclass(frozen=True)
class PlannedJob:
    """A planned job, with the facts that the board and `status` need.

    Attributes:
        id: the name of its folder.
        stage, title, needs, precisions: as in the job.
        checkpoint, method, architecture: its label.
        facts: task, dataset, protocol, adaptive_method, engine, training, seed: those of them that it has.
        published: the published numbers it is to reproduce; None: none is known.
    """

    id: str
    stage: str
    title: str
    checkpoint: str
    method: str
    architecture: str
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    published: Selection | None = None

    @classmethod
    def of(cls, job: Job) -> "PlannedJob":
        """Describe a job of a plan."""
        facts = job.facts
        names = ("task", "dataset", "protocol", "adaptive_method", "engine", "training", "seed")
        return cls(
            id=job.id,
            stage=job.stage,
            title=job.title,
            checkpoint=job.label.checkpoint,
            method=job.label.method,
            architecture=job.label.architecture,
            precisions=job.precisions,
            needs=job.needs,
            facts={name: facts[name] for name in names if name in facts},
            published=job.published,
        )


@dataclass(frozen=True)
class PlannedSuite:
    """The jobs of one suite, and the published numbers it shows."""

    name: str
    jobs: tuple[PlannedJob, ...]
    reported: tuple[Selection, ...] = ()


def remember(runs_dir: Path, plan: Plan) -> None:
    """Write the plan of a suite to a runs folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", plan.name)
    suite = {
        "schema_version": SCHEMA_VERSION,
        "name": plan.name,
        "reported": list(plan.reported),
        "jobs": [asdict(PlannedJob.of(job)) for job in plan.jobs.values()],
    }
    Path(runs_dir).mkdir(parents=True, exist_ok=True)
    text = json.dumps(suite, sort_keys=True, indent=1, ensure_ascii=False)
    write_text(Path(runs_dir) / f"{_SUITE}{name}.json", text + "\n")


def planned_suites(runs_dir: Path) -> Iterator[PlannedSuite]:
    """Yield the plans in a folder, one per suite, in the order of their files."""
    for path in sorted(Path(runs_dir).glob(f"{_SUITE}*.json")):
        suite = json.loads(path.read_text(encoding="utf-8"))
        jobs = [
            PlannedJob(**job | {k: tuple(job[k]) for k in ("precisions", "needs")})
            for job in suite["jobs"]
        ]
        yield PlannedSuite(suite["name"], tuple(jobs), tuple(suite["reported"]))


def remembered(runs_dir: Path) -> list[Selection]:
    """Return the published numbers that the suites of this folder show, each once."""
    found: list[Selection] = []
    for suite in planned_suites(runs_dir):
        found += [selection for selection in suite.reported if selection not in found]
    return found
