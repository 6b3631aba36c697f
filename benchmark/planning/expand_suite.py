"""Turn the entries of one suite file into jobs."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowbit.benchmark.planning.deployed_jobs import deployed_inputs, described
from lowbit.benchmark.planning.exclusions import Exclusions, Facts
from lowbit.benchmark.planning.job import File, Job, Label, Output
from lowbit.benchmark.planning.job_graph import Graph
from lowbit.benchmark.planning.suite import Deploy, Detection, Pretraining, Suite, Transfer
from lowbit.benchmark.published import Selection
from lowbit.benchmark.published.reproduction_targets import ReproductionTargets
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.yaml_files import load_yaml, set_key, validate
from lowbit.common.input_files.file_names import expanded
from lowbit.common.shipped_configs import is_shipped

_DETECTRON2 = "MODEL"  # a key of its configurations that no recipe has
_PENDING = "(made by the sweep)"  # stands for a path while a recipe is checked


class Planner:
    """Adds the jobs of one suite to a graph.

    Args:
        suite: the suite to plan, with settings from including suites.
        folder: folder that its paths are relative to.
        graph: receives the jobs.
        exclusions: exclusions of the suite and of those that include it.
        targets: reproduction targets of the plan.
    """

    def __init__(
        self,
        suite: Suite,
        folder: Path,
        *,
        graph: Graph,
        exclusions: Sequence[Exclusions],
        targets: ReproductionTargets,
    ):
        self._suite = suite
        self._folder = folder
        self._graph = graph
        self._exclusions = exclusions
        self._targets = targets
        self._sources: dict[str, File | Output] = {}
        self._labels: dict[str, Label] = {}
        self._published: dict[str, Selection | None] = {}
        # Job that an entry trains, by (stage, entry, checkpoint) and seed; None: that job is left out.
        self._made: dict[tuple[str, str | None, str], dict[int, str | None]] = defaultdict(dict)
        self._random: dict[str, str] = {}  # entry id -> name of its random weights

    def add_jobs(self) -> None:
        """Add the jobs of every checkpoint and entry."""
        for group in self._suite.checkpoints:
            for pretraining in self._suite.pretrainings(group):
                self._add_checkpoint(pretraining)
        for entry in _sources_first(self._suite.transfer, lambda entry: entry.start):
            self._add_transfer(entry)
        for entry in _sources_first(self._suite.detection, lambda entry: entry.detector):
            self._add_detection(entry)
        for entry in self._suite.deploy:
            self._add_deploy(entry)

    def _add_checkpoint(self, pretraining: Pretraining) -> None:
        name, checkpoint = pretraining.name, pretraining.checkpoint
        label = Label(name, pretraining=pretraining.method, pretrain_seed=pretraining.seed)
        if checkpoint.path is not None:
            label = replace(label, architecture=checkpoint.architecture or "-")
            source: File | Output = File.at(self._weights(checkpoint.path), url=checkpoint.url)
        else:
            file, mapping = self._recipe(checkpoint.pretrain, checkpoint.overrides)
            recipe = validate("pretrain", mapping, source=file)
            job = Job.plan("pretrain", recipe, inputs={}, label=label)
            label = replace(
                label,
                method=job.facts.get("method") or "-",
                architecture=job.facts.get("architecture") or "-",
                pretrain_seed=job.facts.get("seed"),
            )
            source = Output(self._graph.add(replace(job, label=label)))
        self._graph.name(name, source.content)
        self._sources[name] = source
        self._labels[name] = label
        self._published[name] = checkpoint.published

    def _add_transfer(self, entry: Transfer) -> None:
        file, mapping = self._recipe(entry.recipe, entry.overrides)
        if precisions := entry.precisions or self._suite.precisions:
            mapping["precisions"] = list(precisions)
        for name, seed in self._meetings(entry):
            inputs = {"checkpoint": self._sources[name]}
            if entry.start is not None:
                start = self._made_by("transfer", entry.start, name, seed)
                if start is None:
                    self._made["transfer", entry.id, name][seed] = None
                    continue
                inputs = {"checkpoint": Output(start, self._only_network(start, entry))}
            self._add_scored(entry, "transfer", file, {**mapping, "seed": seed}, name, inputs)

    def _add_detection(self, entry: Detection) -> None:
        file, mapping = self._recipe(entry.recipe, entry.overrides)
        random = self._name_random(entry, mapping)
        for name, seed in self._meetings(entry, random):
            inputs = {} if random else {"checkpoint": self._sources[name]}
            if entry.detector is not None:
                detector = self._made_by("detection", entry.detector, name, seed)
                if detector is None:
                    self._made["detection", entry.id, name][seed] = None
                    continue
                inputs["detector"] = Output(detector)
            self._add_scored(entry, "detection", file, {**mapping, "seed": seed}, name, inputs)

    def _add_deploy(self, entry: Deploy) -> None:
        """Add a job for all that the named transfer or detection entry makes."""
        file, mapping = self._recipe(entry.recipe, entry.overrides)
        stage, source = entry.source
        made_of = [name for at, entry_id, name in self._made if (at, entry_id) == (stage, source)]
        for name in self._suite.named(entry.checkpoints) if entry.checkpoints else made_of:
            for seed in entry.seeds or self._made[stage, source, name] or self._suite.seeds:
                job_id = self._made_by(stage, source, name, seed)
                if job_id is None:
                    continue
                made_by = self._graph.jobs[job_id]
                inputs = deployed_inputs(made_by)
                precisions = entry.precisions or mapping.get("precisions") or made_by.precisions
                each = {**mapping, **described(made_by), "precisions": list(precisions)}
                unmade = dict.fromkeys(inputs, _PENDING)
                _require_scored(entry, validate("deploy", {**unmade, **each}, source=file), made_by)
                self._add_scored(entry, "deploy", file, each, name, inputs)

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
        entry: Transfer | Detection | Deploy,
        stage: str,
        file: Path,
        mapping: dict[str, Any],
        name: str,
        inputs: dict[str, File | Output],
    ) -> None:
        for input_field, source in inputs.items():
            mapping[input_field] = str(source.path) if isinstance(source, File) else _PENDING
        architecture = self._labels[name].architecture
        names_network = stage != "deploy"  # there the networks' file does
        if names_network and isinstance(self._sources.get(name), File) and architecture != "-":
            mapping["architecture"] = architecture
        job = self._job(stage, file, mapping, name, inputs)
        left = self._left(job, file, mapping)
        if left and left != job.precisions:
            mapping["precisions"] = list(left)
            job = self._job(stage, file, mapping, name, inputs)
        seed = mapping["seed"]
        made = self._made[stage, getattr(entry, "id", None), name]
        made[seed] = None
        if not left:
            self._graph.spared.update(job.needs)
            return
        suite, entries = self._suite.name, getattr(self._suite, stage)
        owners = {
            f"{suite}: checkpoint {name!r}": self._published.get(name),
            f"{suite}: {stage}.{entries.index(entry)} ({entry.recipe})": entry.published,
        }
        published = self._targets.of_job(owners, job.precisions)
        made[seed] = self._graph.add(replace(job, published=published))

    def _job(
        self,
        stage: str,
        file: Path,
        mapping: dict[str, Any],
        name: str,
        inputs: dict[str, File | Output],
    ) -> Job:
        recipe = validate(stage, mapping, source=file)
        return Job.plan(stage, recipe, inputs=inputs, label=self._labels[name])

    def _left(self, job: Job, file: Path, mapping: dict[str, Any]) -> tuple[str, ...]:
        """Return the job's precisions that no exclusion names."""
        if not self._exclusions:
            return job.precisions
        facts, left = _facts(job, file, mapping), job.precisions
        for exclusions in self._exclusions:
            left = exclusions.remaining(facts, left)
        return left

    def _recipe(self, name: str, overrides: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        file = self._resolve(name)
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())  # as a user would write it
        mapping = load_yaml(file)
        if _DETECTRON2 in mapping:
            mapping = {"config": str(file)}
        for key, value in overrides.items():
            set_key(mapping, key, value)
        return file, mapping

    def _weights(self, name: str) -> Path:
        """Return a checkpoint file; the package has no weights, so its suites name the user's files."""
        path = expanded(name)
        return path.resolve() if is_shipped(self._folder) else self._resolve(name)

    def _resolve(self, name: str) -> Path:
        return (self._folder / expanded(name)).resolve()

    def _meetings(
        self, entry: Transfer | Detection, random: str | None = None
    ) -> Iterator[tuple[str, int]]:
        named = self._suite.named(entry.checkpoints) if entry.checkpoints else self._sources
        names = [random] if random else list(named)
        if not names:
            raise RecipeError(
                f"{entry.recipe} has no checkpoint to score; nothing was run. List one under "
                "`checkpoints`; checkpoint=FILE on the command line adds one."
            )
        for name in names:
            for seed in entry.seeds or self._suite.seeds:
                yield name, seed

    def _made_by(self, stage: str, entry_id: str, name: str, seed: int) -> str | None:
        """Return the job that another entry starts from: with the same seed, or the only one."""
        by_seed = self._made[stage, entry_id, name]
        if seed not in by_seed and len(by_seed) != 1:
            found = f"seeds {', '.join(map(str, by_seed))}" if by_seed else "none"
            raise RecipeError(
                f"An entry starts from what {entry_id!r} trains on {name} with seed {seed}, but that "
                f"entry trains {found}; nothing was run. Give both entries the same `checkpoints` "
                "and `seeds`."
            )
        return by_seed[seed] if seed in by_seed else next(iter(by_seed.values()))

    def _only_network(self, job_id: str, entry: Transfer) -> str:
        precisions = self._graph.jobs[job_id].precisions
        if len(precisions) != 1:
            raise RecipeError(
                f"{entry.recipe} starts from what {entry.start!r} trains, but that is one network for each "
                f"of {', '.join(precisions)}; nothing was run. Give that entry one precision."
            )
        return f"network {precisions[0]}"


def _require_scored(entry: Deploy, recipe: Any, made_by: Job) -> None:
    absent = [p for p in map(str, recipe.precisions) if p not in made_by.precisions]
    if absent:
        raise RecipeError(
            f"{entry.recipe} runs what {entry.source[1]!r} scores at {', '.join(absent)}, but that entry "
            f"scores {', '.join(made_by.precisions)}; nothing was run. List its precisions alone."
        )


def _facts(job: Job, file: Path, mapping: dict[str, Any]) -> Facts:
    """Return the facts of a job that exclusions may name."""
    known = job.facts
    found = {
        "checkpoint": {job.label.checkpoint, job.label.pretraining},
        "method": {job.label.method},
        "architecture": {job.label.architecture},
        "stage": {job.stage},
        "recipe": {file.stem, Path(mapping.get("config") or file).stem},
        "protocol": {job.recipe.get("protocol"), known.get("protocol")},
        **{name: {known.get(name)} for name in ("dataset", "training", "policy", "engine", "seed")},
    }
    return {name: frozenset(map(str, values - {None})) for name, values in found.items()}


def _sources_first(entries: Sequence[Any], source: Any) -> list[Any]:
    """Order entries so that each comes after the one it starts from."""
    ordered: list[Any] = []
    waiting = list(entries)
    while waiting:
        ready = [e for e in waiting if source(e) in (None, *(done.id for done in ordered))]
        ordered += ready
        waiting = [e for e in waiting if e not in ready]
    return ordered
