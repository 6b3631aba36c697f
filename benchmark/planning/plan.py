"""Plan a suite file as a graph of jobs: pretraining, and scoring of each backbone."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.benchmark.planning.exclusions import Exclusions
from lowbit.benchmark.planning.expand_suite import Planner
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.job_graph import Graph
from lowbit.benchmark.planning.suite import Checkpoint, Suite, load_suite
from lowbit.benchmark.published import select
from lowbit.benchmark.published.reproduction_targets import ReproductionTargets
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.common.input_files.file_names import expanded
from lowbit.common.input_files.found_once import finding_once

_MOST_SUITES = 200  # of a plan; the largest shipped one has 20


@dataclass(frozen=True)
class Plan:
    """The jobs of a suite, each once, every job after those it needs."""

    name: str
    jobs: dict[str, Job]
    reported: tuple[dict[str, Any], ...] = ()

    def select(self, *, only: Collection[str] = STAGES, shard: tuple[int, int] = (0, 1)) -> "Plan":
        """Return the part of the plan for one runner.

        Args:
            only: stages to keep.
            shard: (i, n): every n-th job from the i-th on, and the jobs they need. Each job belongs
                to one shard; a job that several shards need is run by the first to claim it.
        """
        index, count = shard
        kept = [job for job in self.jobs.values() if job.stage in only]
        chosen = {job.id for job in kept[index::count]}
        for job in reversed(kept):
            if job.id in chosen:
                chosen.update(job.needs)
        jobs = {job.id: job for job in kept if job.id in chosen}
        return Plan(self.name, jobs, self.reported)

    @property
    def needed(self) -> set[str]:
        """Ids of the jobs whose outputs others read."""
        return {need for job in self.jobs.values() for need in job.needs}


@finding_once()
def plan(path: Path | str, overrides: Sequence[str] = ()) -> Plan:
    """Read a suite file, and those it includes, and return their jobs.

    A missing checkpoint file is no error here: its jobs are planned, and fail with that reason.

    Raises:
        RecipeError: a suite or one of its recipes is wrong.
    """
    suite = load_suite(path, overrides)
    graph, targets, reported = Graph(), ReproductionTargets(str(path)), []
    left = iter(range(_MOST_SUITES))
    _add(
        suite, Path(path), (), graph=graph, targets=targets, reported=reported, chain=(), left=left
    )
    targets.check_all_useful()
    order = {stage: index for index, stage in enumerate(STAGES)}
    jobs = sorted(graph.useful(), key=lambda job: order[job.stage])
    return Plan(suite.name, {job.id: job for job in jobs}, tuple(reported))


def _add(
    suite: Suite,
    path: Path,
    handed_down: tuple[Exclusions, ...],
    *,
    graph: Graph,
    targets: ReproductionTargets,
    reported: list[Mapping[str, Any]],
    chain: tuple[Path, ...],
    left: Iterator[int],
) -> None:
    """Add the jobs of a suite and its published numbers, included suites first.

    Args:
        suite: the suite of `path`, with settings from including suites.
        handed_down: their exclusions.
        chain: the files that include it.
        left: one for each suite that may still be added.
    """
    if next(left, None) is None:
        raise RecipeError(
            f"{path} would be the {_MOST_SUITES + 1}th suite of this plan: the files include each other "
            "too often; nothing was run. Include each once."
        )
    own = Exclusions(suite.exclude, str(path))
    exclusions = (*handed_down, own) if suite.exclude else handed_down
    for name in suite.include:
        file = path.parent / expanded(name)
        including = _including(path, file, chain)
        _add(
            _handed_down(suite, path.parent, load_suite(file)),
            file,
            exclusions,
            graph=graph,
            targets=targets,
            reported=reported,
            chain=including,
            left=left,
        )
    if suite.reported:
        _check_reported(suite, path)
        reported += [selection for selection in suite.reported if selection not in reported]
    planner = Planner(suite, path.parent, graph=graph, exclusions=exclusions, targets=targets)
    planner.add_jobs()
    own.check_all_matched()


def _including(path: Path, file: Path, chain: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the files that include `file`, `path` the last of them; it must not be one itself."""
    including = (*chain, path.resolve())
    if file.resolve() in including:
        circle = " -> ".join(map(str, (*including, file.resolve())))
        raise RecipeError(
            f"The suites include each other: {circle}; nothing was run. Remove one `include`."
        )
    return including


def _handed_down(suite: Suite, folder: Path, included: Suite) -> Suite:
    """Return an included suite with the checkpoints, and the seeds and precisions, of `suite`."""
    shared = ("seeds", "pretrain_seeds", "precisions")
    given = {name: getattr(suite, name) for name in shared}
    given = {name: value for name, value in given.items() if name in suite.model_fields_set}
    checkpoints = (*included.checkpoints, *(_absolute(c, folder) for c in suite.checkpoints))
    names = [c.name for c in checkpoints]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(
            f"The suite {suite.name} and the suite {included.name}, which it includes, both have a "
            f"checkpoint {twice[0]!r}; nothing was run. Give one of them another name."
        )
    return included.model_copy(update={**given, "checkpoints": checkpoints})


def _absolute(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    kind = "pretrain" if checkpoint.path is None else "path"
    path = (folder / expanded(getattr(checkpoint, kind))).resolve()
    return checkpoint.model_copy(update={kind: str(path)})


def _check_reported(suite: Suite, path: Path) -> None:
    """Refuse selections without published numbers before the sweep starts."""
    try:
        for selection in suite.reported:
            select(selection)
    except ValueError as error:
        raise RecipeError(f"{path} (a suite): reported: {error}") from error
