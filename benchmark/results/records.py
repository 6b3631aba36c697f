"""Turn a result into rows of the results frame: facts of the job, and one row per number."""

from collections.abc import Iterator
from typing import Any

from lowbit.benchmark.results.recipe_hash import RECIPE, START, recipe_sha256, start_job
from lowbit.benchmark.results.result_file import (
    ADAPTIVE,
    BIT_OPERATIONS,
    DEVICE,
    HIGH,
    INTERVAL,
    LOW,
    MACHINE,
    POLICY_ON_BOARD,
    PRETRAIN_SEED,
    PRETRAINING,
    ROUNDING,
    SECONDS,
    STDERR,
    TRAINING,
    WARNING,
    WEIGHT_BYTES,
    ZERO_SHOT,
    Result,
)
from lowbit.common.text import printable, printable_lines

QUESTION, ORIGIN = "question", "origin"  # which results belong together
ROWS = "rows"

# What a job's numbers share, and what each has for itself.
JOB_TEXTS = (
    "job_id", "status", "reason", "checkpoint", PRETRAINING, "method", "architecture", "task",
    "dataset", "protocol", *ADAPTIVE, TRAINING, "engine", *MACHINE, "policy", "policy_fingerprint",
    "split_sha256", QUESTION, ORIGIN, RECIPE, START, DEVICE,
)  # fmt: skip
JOB_INTEGERS = ("seed", PRETRAIN_SEED, "image_size", "protocol_version")
JOB_FLOATS = (SECONDS,)
JOB_FLAGS = (POLICY_ON_BOARD,)
ROW_TEXTS = ("precision", "metric", "unit", "split", INTERVAL, WARNING)
ROW_FLOATS = ("value", STDERR, LOW, HIGH, WEIGHT_BYTES, BIT_OPERATIONS, ROUNDING)
ROW_INTEGERS = ("n",)

# Where a job without numbers is shown: its task, by stage where that is not it, and the metric of its cell.
TASKS = {"transfer": "classification", "deploy": "deployment"}
_MAIN_METRIC = {
    "classification": ("top1", "%"),
    "detection": ("AP", "%"),
    "pretrain": ("loss", "-"),
}
_RENAMED = {"low": LOW, "high": HIGH, "interval": INTERVAL, "warning": WARNING}
_LARGEST = 2**63 - 1


def make_record(result: Result) -> dict[str, Any]:
    """Return the facts of a job, its numbers as ROWS.

    A failed or skipped job has a row without a value for each precision that it was planned at, so that
    its reason can be shown in its place.
    """
    facts = _derived(result) | result.facts
    task = str(result.identity.get("task") or TASKS.get(result.stage, result.stage))
    named = {
        "job_id": result.job_id,
        "status": result.status,
        "reason": result.reason or "",
        "checkpoint": result.checkpoint.name,
        PRETRAINING: result.checkpoint.pretraining or result.checkpoint.name,
        PRETRAIN_SEED: result.checkpoint.pretrain_seed,
        "method": result.checkpoint.method,
        "architecture": result.checkpoint.architecture,
        "task": task,
        "protocol_version": result.protocol_version,
        "seed": _whole(result.recipe.get("seed")),
        "image_size": _whole(facts.get("image_size")),
        POLICY_ON_BOARD: facts[POLICY_ON_BOARD] is not False,
        QUESTION: result.question,
        ORIGIN: _origin(result),
        RECIPE: recipe_sha256(result),
        START: start_job(result),
        SECONDS: result.seconds,
        DEVICE: result.device or "-",
    }
    described = {name: str(facts.get(name) or "-") for name in JOB_TEXTS if name not in named}
    rows = _numbers(result) if result.status == "completed" else _blanks(result, task)
    return _shown(named | described) | {ROWS: [_shown(row) for row in rows]}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose texts neither change a terminal nor break a line of a table."""
    return {
        name: value
        if not isinstance(value, str) or value.isprintable()  # as most are, and quickly seen
        else printable_lines(value)
        if name == "reason"
        else printable(value, len(value))
        for name, value in record.items()
    }


def _derived(result: Result) -> dict[str, Any]:
    """Return what identities have said of how the board shows a job only since they name it."""
    recipe, label = result.recipe, str(result.identity.get("protocol"))
    facts: dict[str, Any] = {
        POLICY_ON_BOARD: result.stage != "detection" and recipe.get("protocol") != "qat"
    }
    section = recipe.get("adaptive")
    if isinstance(section, dict):
        method, bits = section.get("method"), section.get("bits")
        variant = label.removeprefix(f"adaptive-{method}").removeprefix("-")
        own = f"b{''.join(map(str, bits))}" if isinstance(bits, list) else ""
        shared = variant.removeprefix(own).removeprefix("-")
        reference = "adaptive-individual" + (f"-{shared}" if shared else "")
        facts |= dict(zip(ADAPTIVE, (method, variant, reference), strict=True))
    return facts


def _numbers(result: Result) -> Iterator[dict[str, Any]]:
    untrained = _texts(result.details.get(ZERO_SHOT))
    for measurement in result.measurements:
        row = {**measurement.__dict__, ZERO_SHOT: measurement.precision in untrained}
        row |= {new: row.pop(old) for old, new in _RENAMED.items()}
        if cost := result.costs.get(measurement.precision):
            row |= cost.__dict__
        row[ROUNDING] = _rounding(result.details.get(ROUNDING), measurement.precision)
        yield row


def _blanks(result: Result, task: str) -> Iterator[dict[str, Any]]:
    main, unit = _MAIN_METRIC.get(task, ("-", "-"))
    for metric in _texts(result.recipe.get("metrics")) or [main]:
        for precision in result.precisions:
            blank = {"metric": metric, "unit": unit, "split": "test", "precision": precision}
            yield blank | {ZERO_SHOT: False}


def _origin(result: Result) -> str:
    """Return the checkpoint's origin: the job that made it, its file's hash, or random weights."""
    source = result.inputs.get("checkpoint")
    if source is None and result.stage == "pretrain":
        return result.job_id
    if source is None:  # random weights
        return result.checkpoint.name
    return source.job_id or source.sha256 or "missing"


# A stage's own fields may hold anything, in another's result files at least.


def _rounding(detail: Any, precision: str) -> float | None:
    """Return the share in % that a detail gives for a precision; older results have none."""
    shares = detail.get("share") if isinstance(detail, dict) else None
    share = shares.get(precision) if isinstance(shares, dict) else None
    known = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 100
    return float(share) if known else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) <= _LARGEST else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
