"""Load the results of runs folders as rows.

They are read from the cache of a folder (`benchmark/results/records/record_cache.py`), plus one result file a row for
its recipe; neither torch nor pandas is imported.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lowbit.benchmark.claims.known_names import OPTIMIZERS, TASKS
from lowbit.benchmark.claims.result_rows import LABEL, PRETRAIN, Job, ResultRow, Unit
from lowbit.benchmark.results.recipe_hash import RECIPE, START, telling_fields
from lowbit.benchmark.results.records.make_record import ORIGIN, ROWS
from lowbit.benchmark.results.records.record_cache import load_records
from lowbit.benchmark.results.records.record_columns import FOLDER
from lowbit.benchmark.results.result_file import PRETRAIN_SEED, PRETRAINING, RESULT, read_result
from lowbit.benchmark.results.verdicts import SUBMISSIONS

# Fields of recipes that change no number, of all stages.
COSMETIC = frozenset(
    ("name", "data_root", "device", "num_gpus", "num_workers", "checkpoint_every", "log_every")
    + ("keep_checkpoints", "knn_every", "save_predictions", "cache_dir", "config", "opts")
)
_SHARED = ("task", "dataset", "architecture", "method", "engine", "training", "policy")
_SHARED += ("policy_fingerprint", "split_sha256", "image_size", "protocol_version")
_READ = ["job_id", "status", "protocol", "adaptive_reference", "seed", PRETRAINING, PRETRAIN_SEED]
_READ += [FOLDER, RECIPE, START, ORIGIN, *_SHARED]


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
        named = policy.get("base", record["policy"])  # a variation counts as what it varies
        facts |= {"policy": named} | dict(flat(policy, "policy."))
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
