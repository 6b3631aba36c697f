"""Plan files: one per suite, beside the jobs' folders.

    runs/suite-<name>.json     the jobs of a suite, which numbers each is to reproduce, and which
                               published numbers the board shows beside

With it, the board can show cells without a job so far, and name the suite that fills them.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.published import Selection
from lowbit.common.atomic_file import write_text
from lowbit.common.input_files.json_values import parse_json
from lowbit.common.input_files.regular_file import read_regular
from lowbit.common.text import printable

SCHEMA_VERSION = 1
_SUITE = "suite-"
_LABELS = ("checkpoint", "method", "architecture")
_MOST_BYTES, _MOST_VALUES = 512 << 20, 20_000_000  # 100,000 jobs have a tenth

_logger = logging.getLogger(__name__)


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
        try:
            data = read_regular(path, limit=_MOST_BYTES)
            suite = parse_json(data, path.name, limit=_MOST_BYTES, values=_MOST_VALUES)
            jobs = tuple(map(_planned_job, suite["jobs"]))
            found = PlannedSuite(printable(suite["name"]), jobs, tuple(suite["reported"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _logger.warning(
                "%s is no plan of this release (%s); it is ignored. Run its suite again to write it.",
                printable(str(path)),
                printable(f"{type(error).__name__}: {error}"),
            )
            continue
        yield found


def _planned_job(job: dict[str, Any]) -> PlannedJob:
    texts = {name: printable(job[name]) for name in ("id", "stage", "title", *_LABELS)}
    lists = {name: tuple(map(printable, job[name])) for name in ("precisions", "needs")}
    facts = {k: printable(v) if isinstance(v, str) else v for k, v in job["facts"].items()}
    return PlannedJob(**job | texts | lists | {"facts": facts})


def remembered(runs_dir: Path) -> list[Selection]:
    """Return the published numbers that the suites of this folder show, each once."""
    found: list[Selection] = []
    for suite in planned_suites(runs_dir):
        found += [selection for selection in suite.reported if selection not in found]
    return found
