"""Results as the rows that claims compare: one per recipe, its numbers by pretraining and seed.

Read from the cache of a runs folder (`benchmark/results/record_cache.py`), plus one result file a row for
its recipe; neither torch nor pandas is imported.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lowbit.benchmark.claims.detail_numbers import DETAILS, score_after
from lowbit.benchmark.claims.known_names import OPTIMIZERS, TASKS
from lowbit.benchmark.results.record_cache import FOLDER, load_records
from lowbit.benchmark.results.recipe_hash import RECIPE, START, telling_fields
from lowbit.benchmark.results.records import ORIGIN, ROWS
from lowbit.benchmark.results.result_file import (
    PRETRAIN_SEED,
    PRETRAINING,
    RESULT,
    STDERR,
    Result,
    read_result,
)
from lowbit.benchmark.results.verdicts import SUBMISSIONS

# Fields of recipes that change no number, of all stages.
COSMETIC = frozenset(
    ("name", "data_root", "device", "num_gpus", "num_workers", "checkpoint_every", "log_every")
    + ("keep_checkpoints", "knn_every", "save_predictions", "cache_dir", "config", "opts")
)
PRETRAIN = "pretrain."  # before the facts of a backbone's pretraining
_SHARED = ("task", "dataset", "architecture", "method", "engine", "training", "policy")
_SHARED += ("policy_fingerprint", "split_sha256", "image_size", "protocol_version")
LABEL = "protocol_label"  # the board's protocol, with all settings that make it another
_READ = ["job_id", "status", "protocol", "adaptive_reference", "seed", PRETRAINING, PRETRAIN_SEED]
_READ += [FOLDER, RECIPE, START, ORIGIN, *_SHARED]

Unit = tuple[int | str | None, int | None]
"""A pretraining's seed (or its job, where it has none) and a scoring seed."""


@dataclass(frozen=True)
class Number:
    """A measured number; its standard error over `n` test images, where it is known."""

    value: float
    stderr: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Job:
    """A completed job.

    Attributes:
        unit: which pretraining and seed it is.
        origin: the pretraining, or file, that its backbone came from.
        made_in: where that pretraining's result file is; None: it is not known.
        folders: where its own is, and copies of it.
        measured: returns its measurements.
    """

    unit: Unit
    origin: str
    made_in: str | None
    folders: tuple[str, ...]
    measured: Callable[[], list[dict[str, Any]]]

    @cached_property
    def numbers(self) -> dict[tuple[str, str], Number]:
        """What was measured on test images, by metric and precision."""
        return {
            (row["metric"], row["precision"]): Number(row["value"], row[STDERR], row["n"])
            for row in self.measured()
            if row["split"] == "test" and row["value"] is not None
        }

    def number(self, metric: str, precision: str, after: float | None = None) -> Number | None:
        """Return a number of it, see `Claim`; None where it has none of that kind."""
        if metric in DETAILS:
            read = (dict(DETAILS[metric].read(result)) for result in self._results())
            found = next((by_precision for by_precision in read if by_precision), {})
            return Number(found[precision]) if precision in found else None
        measured = self.numbers.get((metric, precision))
        if after is None or measured is None:
            return measured
        scores = (score_after(result, after, metric) for result in self._results())
        score = next((score for score in scores if score is not None), None)
        return None if score is None else Number(score)

    def _results(self) -> Iterator[Result]:
        yield from filter(None, map(read_result, self.folders))


@dataclass(frozen=True)
class ResultRow:
    """Results of one recipe.

    Attributes:
        facts: of the recipe and the identity, dotted; those of the backbone's pretraining, where its
            result is there, after `pretrain.`.
        name: what the suite calls its backbone, without the seed.
        find_jobs: returns a job for each seed, or several.
    """

    facts: Mapping[str, Any]
    name: str
    find_jobs: Callable[[], list[Job]]
    _values: dict[tuple, dict[Unit, Number]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs, in the order of their units."""
        return tuple(sorted(self.find_jobs(), key=lambda job: (str(job.unit), job.folders)))

    @cached_property
    def origins(self) -> frozenset[str]:
        """The pretrainings, or files, that its backbones came from."""
        return frozenset(job.origin for job in self.jobs)

    @cached_property
    def length(self) -> str:
        """How long it trained, in words; "" if it did not."""
        return _length(read_result(self.jobs[0].folders[0]))

    @cached_property
    def pretraining(self) -> str:
        """How long its backbone was pretrained, and on what; "" if it was not, or that is not known."""
        made = self.jobs[0].made_in
        length = _length(read_result(made)) if made else ""
        return f"{length} on {self.facts[PRETRAIN + 'dataset']}" if length else ""

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether it has all these facts; a list stands for any of its values, or is the value."""
        return all(name in self.facts and _is(self.facts[name], v) for name, v in wanted.items())

    def values(self, metric: str, precision: str, after: float | None) -> dict[Unit, Number]:
        """Return its numbers by unit; several jobs of one are averaged."""
        key = (metric, precision, after)
        if key not in self._values:
            found = defaultdict(list)
            for job in self.jobs:
                if (number := job.number(*key)) is not None:
                    found[job.unit].append(number)
            self._values[key] = {unit: _mean(numbers) for unit, numbers in found.items()}
        return self._values[key]


def load_rows(folders: Iterable[Path]) -> list[ResultRow]:
    """Return the rows of results that were measured in runs folders, in the order of their names.

    Args:
        folders: each a runs folder, or one of runs folders.

    Raises:
        FileNotFoundError: a folder is missing, or there is no result in it.
    """
    records: dict[str, dict[str, Any]] = {}  # by job: each counts once
    for folder in map(Path, folders):
        for runs in _runs_folders(folder):
            for record in _records(runs):
                known = records.setdefault(record["job_id"], record)
                known["folders"].append(f"{runs}/{record[FOLDER]}")
    grouped = defaultdict(list)
    for record in records.values():
        if record["status"] == "completed" and record["task"] in TASKS:
            grouped[_key(record, records)].append(record)
    merged: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    facts_of = {}
    for group in grouped.values():
        facts = _facts(group[0], records)
        key = tuple(sorted((name, repr(value)) for name, value in facts.items()))
        key += () if _is_known(group[0], records) else ((PRETRAINING, group[0][PRETRAINING]),)
        merged[key] += group
        facts_of.setdefault(key, facts)
    rows = [
        ((group[0][PRETRAINING], key), _row(facts_of[key], group, records))
        for key, group in merged.items()
    ]
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of sections with dotted names."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _runs_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; no claim was tried. Name a folder of results: runs/<name>, or "
            "docs/evidence."
        )
    if any(folder.glob(f"*/{RESULT}")):
        return [folder]
    inner = sorted(path for path in folder.iterdir() if any(path.glob(f"*/{RESULT}")))
    if not inner:
        raise FileNotFoundError(
            f"{folder} has no results ({RESULT} in a folder a job); no claim was tried. Name the folder "
            "that a suite wrote its runs to."
        )
    return inner


def _records(runs: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of jobs that ran here, without their numbers, which `measured` reads."""
    table = load_records(runs)
    numbers = table[ROWS]
    for index, record in enumerate(table.select(_READ).to_pylist()):
        if not record[FOLDER].startswith(f"{SUBMISSIONS}/"):
            record["folders"], record["measured"] = [], partial(_measured, numbers, index)
            yield record


def _measured(numbers: pa.ChunkedArray, index: int) -> list[dict[str, Any]]:
    return numbers[index].as_py()


def _key(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> tuple:
    """Return what jobs of one recipe share before their recipes are read."""
    made = [records.get(record[name]) for name in (ORIGIN, START)]
    known = [each and (each[RECIPE], *(each[name] for name in _SHARED)) for each in made]
    if record["task"] == "pretrain":
        known[0] = None  # itself
    own = (record[RECIPE], record["protocol"], *(record[name] for name in _SHARED))
    return (*own, *known, None if _is_known(record, records) else record[PRETRAINING])


def _is_known(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the recipe of its backbone's pretraining is known."""
    return record[ORIGIN] in records


def _facts(
    record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], *, start: bool = True
) -> dict[str, Any]:
    """Return the facts of a job's row."""
    result = read_result(record["folders"][0])
    fields = telling_fields(result) if result else {}
    facts = dict(flat({k: v for k, v in fields.items() if k not in COSMETIC}))
    policy = result.recipe.get("policy") if result else None
    facts |= {name: record[name] for name in _SHARED}
    if isinstance(policy, dict):
        facts |= {"policy": policy} | dict(flat(policy, "policy."))
    facts.setdefault("protocol", record["protocol"])
    facts[LABEL] = next(
        label for label in (record["adaptive_reference"], record["protocol"]) if label != "-"
    )
    if record["task"] == "detection":
        facts["optimizer"] = _optimizer(record["training"])
    made = {PRETRAIN: ORIGIN, "start.": START} if start and record["task"] != "pretrain" else {}
    for prefix, name in made.items():
        if record[name] in records:
            inner = _facts(records[record[name]], records, start=False)
            facts |= {prefix + name: value for name, value in inner.items()}
    return facts


def _optimizer(training: str) -> str:
    """Return the optimizer that a detector's training names, or SGD, which it need not name."""
    words = training.split(", ")
    return next((word for word in words if word in OPTIMIZERS), "sgd")


def _row(
    facts: Mapping[str, Any], group: list[dict[str, Any]], records: Mapping[str, Mapping[str, Any]]
) -> ResultRow:
    return ResultRow(facts, group[0][PRETRAINING], lambda: [_job(r, records) for r in group])


def _job(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Job:
    made = records.get(record[ORIGIN]) if record["task"] != "pretrain" else None
    return Job(
        unit=_unit(record, records),
        origin=record[ORIGIN],
        made_in=made and made["folders"][0],
        folders=tuple(record["folders"]),
        measured=record["measured"],
    )


def _unit(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Unit:
    if record["task"] == "pretrain":
        return record["seed"], None
    seed = record[PRETRAIN_SEED]
    if seed is None and _is_known(record, records):
        seed = records[record[ORIGIN]]["seed"]
    return (record[ORIGIN] if seed is None else seed), record["seed"]


def _length(result: Result | None) -> str:
    """Return how long a job trained, in words; "" if it did not, or it is not known."""
    recipe, details = (result.recipe, result.details) if result else ({}, {})
    epochs, iterations = recipe.get("epochs"), recipe.get("iterations")
    if result and result.stage == "pretrain" and epochs:
        return f"{epochs:,} epochs ({details.get('steps', 0):,} steps)"
    if iterations:
        return f"{iterations:,} iterations"
    return f"{epochs:,} epochs" if epochs else ""


def _is(found: Any, wanted: Any) -> bool:
    return found == wanted or (isinstance(wanted, list | tuple) and found in wanted)


def _mean(numbers: list[Number]) -> Number:
    if len(numbers) == 1:
        return numbers[0]
    errors = [number.stderr for number in numbers if number.stderr is not None]
    return Number(
        sum(number.value for number in numbers) / len(numbers),
        sum(errors) / len(errors) if len(errors) == len(numbers) else None,
        numbers[0].n,
    )
