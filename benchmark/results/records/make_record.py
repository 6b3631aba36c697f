"""Turn a result into its record, what the results frame has of it: facts of the job, and its numbers."""

import marshal
from collections.abc import Iterable
from operator import attrgetter
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

# The facts of a record: those of a job alone, those that the jobs of a sweep share, and its numbers'.
OWN = ("job_id", QUESTION, "reason", SECONDS)
BACKBONE = (
    "checkpoint", PRETRAINING, "method", "architecture", PRETRAIN_SEED, ORIGIN, START,
)  # fmt: skip
SETTINGS = (
    "status", "task", "dataset", "protocol", *ADAPTIVE, TRAINING, "engine", *MACHINE, "policy",
    "policy_fingerprint", "split_sha256", RECIPE, DEVICE, "seed", "image_size", "protocol_version",
    POLICY_ON_BOARD,
)  # fmt: skip
JOB_INTEGERS = ("seed", PRETRAIN_SEED, "image_size", "protocol_version")
JOB_FLOATS = (SECONDS,)
JOB_FLAGS = (POLICY_ON_BOARD,)
ROW_TEXTS = ("precision", "metric", "unit", "split", INTERVAL, WARNING)
ROW_FLOATS = ("value", STDERR, LOW, HIGH, WEIGHT_BYTES, BIT_OPERATIONS, ROUNDING)
ROW_INTEGERS = ("n",)
NUMBER = (*ROW_TEXTS, *ROW_FLOATS, *ROW_INTEGERS, ZERO_SHOT)

# Where a job without numbers is shown: its task, by stage where that is not it, and the metric of its cell.
TASKS = {"transfer": "classification", "deploy": "deployment"}
_MAIN_METRIC = {
    "classification": ("top1", "%"),
    "detection": ("AP", "%"),
    "pretrain": ("loss", "-"),
}
# Of a measurement, in the order of NUMBER.
_texts_of = attrgetter("precision", "metric", "unit", "split", "interval", "warning")
_floats_of = attrgetter("value", "stderr", "low", "high")
_LARGEST = 2**63 - 1


def settings_key(result: Result) -> bytes:
    """Return a text that results have in common only if their settings are the same."""
    fields = (result.recipe, result.identity, tuple(result.inputs), result.precisions)
    fields += (result.stage, result.protocol_version, result.status, result.device)
    return marshal.dumps(fields, 2)  # with its types: 1 is not 1.0, nor true


def settings(result: Result) -> tuple:
    """Return how a job was done, in the order of SETTINGS: what `settings_key` and nothing else decides."""
    facts = _derived(result) | result.facts
    named = {
        "status": result.status,
        "task": _task(result),
        "protocol_version": result.protocol_version,
        "seed": _whole(result.recipe.get("seed")),
        "image_size": _whole(facts.get("image_size")),
        POLICY_ON_BOARD: facts[POLICY_ON_BOARD] is not False,
        RECIPE: recipe_sha256(result),
        DEVICE: result.device or "-",
    }
    return shown([named[n] if n in named else str(facts.get(n) or "-") for n in SETTINGS])


def backbone(result: Result) -> tuple:
    """Return which backbone a job made or scored and where it came from, in the order of BACKBONE."""
    of = result.checkpoint
    pretraining = of.pretraining or of.name
    named = (of.name, pretraining, of.method, of.architecture, of.pretrain_seed)
    return (*named, _origin(result), start_job(result))


def own(result: Result) -> tuple:
    """Return what no other job has, in the order of OWN."""
    reason = printable_lines(result.reason) if result.reason else ""
    return (*shown((result.job_id, result.question)), reason, result.seconds)


def numbers(result: Result) -> list[tuple]:
    """Return a job's numbers, each in the order of NUMBER.

    A failed or skipped job has one without a value for each precision that it was planned at, so that its
    reason can be shown in its place.
    """
    return _measured(result) if result.status == "completed" else _blanks(result)


def shown(values: Iterable[Any]) -> tuple:
    """Return values whose texts neither change a terminal nor break a line of a table."""
    return tuple(
        [
            value
            if not isinstance(value, str) or value.isprintable()  # as most are, and quickly seen
            else printable(value, len(value))
            for value in values
        ]
    )


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


def _measured(result: Result) -> list[tuple]:
    untrained = _texts(result.details.get(ZERO_SHOT))
    detail = result.details.get(ROUNDING)
    rows = []
    for measurement in result.measurements:
        precision = measurement.precision
        cost = result.costs.get(precision)
        rows.append(
            (
                *shown(_texts_of(measurement)),
                *_floats_of(measurement),
                *((cost.weight_bytes, cost.bit_operations) if cost else (None, None)),
                _rounding(detail, precision),
                measurement.n,
                precision in untrained,
            )
        )
    return rows


def _blanks(result: Result) -> list[tuple]:
    main, unit = _MAIN_METRIC.get(_task(result), ("-", "-"))
    absent = (None,) * (len(ROW_FLOATS) + len(ROW_INTEGERS))
    return [
        (*shown((precision, metric, unit, "test", None, None)), *absent, False)
        for metric in _texts(result.recipe.get("metrics")) or [main]
        for precision in result.precisions
    ]


def _task(result: Result) -> str:
    return str(result.identity.get("task") or TASKS.get(result.stage, result.stage))


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
