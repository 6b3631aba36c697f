"""From a suite to a graph of jobs: pretraining, and what scores each backbone."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.job import File, Job, Label, Output
from benchmark.messages import RecipeError
from benchmark.recipe import STAGES, load_yaml, set_key, validate
from benchmark.suite import Checkpoint, Detection, Suite, Transfer, load_suite

_PENDING = "(made by the sweep)"  # stands for a path while a recipe is checked

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The jobs of a suite, each once, every job after those it needs."""

    name: str
    jobs: dict[str, Job]
    reported: tuple[dict[str, Any], ...] = ()

    def select(self, *, only: Collection[str] = STAGES, shard: tuple[int, int] = (0, 1)) -> "Plan":
        """Return the part of the plan one runner has to do.

        Args:
            only: stages to keep.
            shard: (i, n): every n-th job from the i-th on, and what these need. Each job belongs
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


def plan(path: Path | str, overrides: Sequence[str] = ()) -> Plan:
    """Read a suite file and return its jobs.

    A checkpoint file that does not exist stops nothing: its jobs are planned, and fail with that
    reason.

    Raises:
        RecipeError: the suite or one of its recipes is wrong.
    """
    suite = load_suite(path, overrides)
    if suite.reported:
        _check_reported(suite, path)
    return Plan(suite.name, _Planner(suite, Path(path).parent).jobs(), suite.reported)


def _check_reported(suite: Suite, path: Path | str) -> None:
    """Refuse now, not after the sweep, what was never published."""
    from benchmark.reference import reported_rows  # here: it needs pandas, and a job does not

    try:
        reported_rows(suite.reported)
    except ValueError as error:
        raise RecipeError(f"{path} (a suite): reported: {error}") from error


class _Planner:
    """Turns the entries of one suite into jobs; `_jobs` owns the graph."""

    def __init__(self, suite: Suite, folder: Path):
        self._suite = suite
        self._folder = folder
        self._jobs: dict[str, Job] = {}
        self._sources: dict[str, File | Output] = {}
        self._labels: dict[str, Label] = {}
        self._detectors: dict[tuple[str | None, str], dict[int, str]] = defaultdict(dict)
        self._random: dict[str, str] = {}  # entry id -> name of its random weights

    def jobs(self) -> dict[str, Job]:
        for checkpoint in self._suite.checkpoints:
            self._add_checkpoint(checkpoint)
        for entry in self._suite.transfer:
            self._add_transfer(entry)
        for entry in _detectors_first(self._suite.detection):
            self._add_detection(entry)
        order = {stage: index for index, stage in enumerate(STAGES)}
        return dict(sorted(self._jobs.items(), key=lambda item: order[item[1].stage]))

    def _add_checkpoint(self, checkpoint: Checkpoint) -> None:
        if checkpoint.path is not None:
            label = Label(checkpoint.name, architecture=checkpoint.architecture or "-")
            source: File | Output = File.at(self._resolve(checkpoint.path))
        else:
            file, mapping = self._recipe(checkpoint.pretrain, checkpoint.overrides)
            recipe = validate("pretrain", mapping, source=file)
            job = Job.plan("pretrain", recipe, inputs={}, label=Label(checkpoint.name))
            facts = {**job.recipe, **job.identity}
            label = Label(
                checkpoint.name,
                method=facts.get("method") or "-",
                architecture=facts.get("architecture") or "-",
            )
            source = Output(self._add(replace(job, label=label)))
        for other, known in self._sources.items():
            if known.content == source.content:
                _logger.warning(
                    "The checkpoints %s and %s are the same; they are scored once, as %s.",
                    *(other, checkpoint.name, other),
                )
        self._sources[checkpoint.name] = source
        self._labels[checkpoint.name] = label

    def _add_transfer(self, entry: Transfer) -> None:
        file, mapping = self._recipe(entry.recipe, entry.overrides)
        if precisions := entry.precisions or self._suite.precisions:
            mapping["precisions"] = list(precisions)
        for name, seed in self._meetings(entry):
            inputs = {"checkpoint": self._sources[name]}
            self._add_scored("transfer", file, {**mapping, "seed": seed}, name, inputs)

    def _add_detection(self, entry: Detection) -> None:
        file, mapping = self._recipe(entry.recipe, entry.overrides)
        random = self._name_random(entry, mapping)
        for name, seed in self._meetings(entry, random):
            inputs = {} if random else {"checkpoint": self._sources[name]}
            if entry.detector is not None:
                inputs["detector"] = Output(self._detector(entry.detector, name, seed))
            job_id = self._add_scored("detection", file, {**mapping, "seed": seed}, name, inputs)
            self._detectors[entry.id, name][seed] = job_id

    def _name_random(self, entry: Detection, mapping: dict[str, Any]) -> str | None:
        """Name the random weights an entry starts from, itself or through its detector, if it does."""
        name = self._random.get(entry.detector) if entry.detector else None
        if mapping.get("random_backbone"):
            architecture = mapping.get("architecture") or "-"
            name = f"random {architecture}"
            self._labels[name] = Label(name, method="random", architecture=architecture)
        if name is not None:
            if entry.checkpoints:
                raise RecipeError(
                    f"{entry.recipe} starts from random weights, and its entry names checkpoints; "
                    "nothing was run. Leave out `checkpoints`, or random_backbone."
                )
            if entry.id is not None:
                self._random[entry.id] = name
        return name

    def _add_scored(
        self,
        stage: str,
        file: Path,
        mapping: dict[str, Any],
        name: str,
        inputs: dict[str, File | Output],
    ) -> str:
        for field, source in inputs.items():
            mapping[field] = str(source.path) if isinstance(source, File) else _PENDING
        architecture = self._labels[name].architecture
        if isinstance(self._sources.get(name), File) and architecture != "-":
            mapping["architecture"] = architecture
        recipe = validate(stage, mapping, source=file)
        return self._add(Job.plan(stage, recipe, inputs=inputs, label=self._labels[name]))

    def _add(self, job: Job) -> str:
        self._jobs.setdefault(job.id, job)
        return job.id

    def _recipe(self, name: str, overrides: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        file = self._resolve(name)
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())  # as the user would write it
        mapping = load_yaml(file)
        for key, value in overrides.items():
            set_key(mapping, key, value)
        return file, mapping

    def _resolve(self, name: str) -> Path:
        return (self._folder / Path(name).expanduser()).resolve()

    def _meetings(
        self, entry: Transfer | Detection, random: str | None = None
    ) -> Iterator[tuple[str, int]]:
        names = [random] if random else entry.checkpoints or list(self._sources)
        if not names:
            raise RecipeError(
                f"{entry.recipe} has no checkpoint to score; nothing was run. List one under "
                "`checkpoints`; checkpoint=FILE on the command line adds one."
            )
        for name in names:
            for seed in entry.seeds or self._suite.seeds:
                yield name, seed

    def _detector(self, entry_id: str, name: str, seed: int) -> str:
        """Return the job that trained the detector: of the same seed, or the only one there is."""
        by_seed = self._detectors[entry_id, name]
        if seed not in by_seed and len(by_seed) != 1:
            found = f"seeds {', '.join(map(str, by_seed))}" if by_seed else "none"
            raise RecipeError(
                f"Detection starts from detector {entry_id!r} of {name} with seed {seed}, but that "
                f"entry trains {found}; nothing was run. Give both entries the same `checkpoints` "
                "and `seeds`."
            )
        return by_seed.get(seed) or next(iter(by_seed.values()))


def _detectors_first(entries: Iterable[Detection]) -> list[Detection]:
    """Order entries so that each comes after the one its detector is from."""
    ordered: list[Detection] = []
    waiting = list(entries)
    while waiting:
        ready = [e for e in waiting if e.detector in (None, *(done.id for done in ordered))]
        ordered += ready
        waiting = [e for e in waiting if e not in ready]
    return ordered
