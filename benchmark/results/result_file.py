"""Result files: the authoritative record of a job, written atomically.

    runs/<job id>/result.json     one finished job: completed, failed or skipped
    runs/<job id>/...             the job's other files: recipe.yaml, log.txt, metrics.jsonl, checkpoints
    output/<any name>/...         the same of a job that ran by itself, by `lowbit-bench transfer`, say

A result is written to a temporary name, synced, renamed, and its folder synced, so that no reader
sees a partial file. A file that is no result of this layout is reported and ignored. Its job runs
again once the file is set aside under another name (`make_room`); it does not where a newer release
wrote the file, or where the file cannot be read.
All reports are computed from these files (`benchmark/results/frame.py`).
"""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from lowbit.common.atomic_file import write_text
from lowbit.common.input_files.regular_file import NotAFileError, read_regular
from lowbit.common.text import printable

RESULT = "result.json"
ASIDE = f"{RESULT}.damaged"  # and ASIDE.2, ASIDE.3, ...: files that are no results, kept
# 2 is read too: it says neither which checkpoints are pretrainings of one method, nor how intervals were found
SCHEMA_VERSION = 3
# Columns of the frame over all results, see `benchmark/results/frame.py`. The first are those of published
# numbers too. Of measured ones alone: how a backbone became a detector, or "-"; error and 95 % interval
# over test images; what the quantized backbone would store and compute on integer hardware; whether
# the network was trained at other bit-widths only.
COLUMNS = (
    "job_id", "status", "reason", "checkpoint", "method", "architecture", "task", "dataset",
    "protocol", "precision", "metric", "value", "unit", "n", "split", "seed", "engine",
    "policy", "policy_fingerprint", "split_sha256", "protocol_version", "image_size", "source",
)  # fmt: skip
TRAINING, STDERR, LOW, HIGH = "training", "stderr", "image_low", "image_high"
INTERVAL = "image_interval"  # how that interval was found, as measurements say
WARNING = "image_warning"  # why that interval may be too narrow, as measurements say
WEIGHT_BYTES, BIT_OPERATIONS, ZERO_SHOT = "weight_bytes", "bit_operations", "zero_shot"
ROUNDING = "rounding"  # share of predictions that rounding decides, in %; a detail of results too
SECONDS, DEVICE = "seconds", "device"  # how long the job took, and on what
# Of a checkpoint: the name its pretrainings share, and the seed in which they differ.
PRETRAINING, PRETRAIN_SEED = "pretraining", "pretrain_seed"
# How the board shows a job, as identities say: whether its policy is part of its board; of a network of
# adaptive bit-widths the method, what else names its protocol, and the protocol of the networks trained
# at one bit-width each that it is set against.
POLICY_ON_BOARD = "policy_on_board"
ADAPTIVE = ("adaptive_method", "adaptive_variant", "adaptive_reference")
# Of a network that was deployed, as identities say: what it was measured on, beside the runtime (`engine`);
# products: whether sums of 8-bit products are exact there, or saturate.
MACHINE = ("processor", "instruction_set", "cores", "products")
_JOB_ID = re.compile(r"[0-9a-f]{12}")  # a folder's name that says whose it is
MOST_BYTES = 64 << 20  # of a file; ImageNet's counts have half a megabyte
_WHOLE = 2**53  # integers up to here are the same number to every reader of JSON

_logger = logging.getLogger(__name__)
_reported: set[tuple[Path, str]] = set()  # damaged files are reported once a process


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measurement(_Schema):
    """One measured number."""

    metric: str = Field(description="Name of the metric, such as top1 or AP.")
    value: FiniteFloat = Field(description="The measured number, in `unit`.")
    unit: str = Field(description="Unit of the value, % for accuracies and average precision.")
    n: int = Field(ge=1, le=_WHOLE, description="Number of images it was measured on.")
    stderr: FiniteFloat | None = Field(
        None, ge=0, description="Standard error over these images, in `unit`; null: not known."
    )
    low: FiniteFloat | None = Field(
        None,
        description="Lower end of the 95 % interval over these images, or of what `interval` says; "
        "null: unknown.",
    )
    high: FiniteFloat | None = Field(None, description="Upper end of that interval.")
    interval: str | None = Field(
        None,
        description="How the interval was found: wilson, or halves (docs/statistics.md); quartiles: it is "
        "no such interval but the middle half of a timing's rounds; null: by the percentile bootstrap of "
        "earlier versions, if there is one.",
    )
    warning: str | None = Field(
        None, description="Why the interval may be too narrow; null: nothing speaks for that."
    )
    precision: str = Field(description="Bit-widths it was measured at, such as 4w4a or FP.")
    split: str = Field(description="Part of the data set it was measured on.")


class Cost(_Schema):
    """Cost of a network at one precision on integer hardware, which is only simulated here."""

    weight_bytes: int = Field(
        ge=0, le=_WHOLE, description="Bytes of the backbone's parameters, codes packed."
    )
    bit_operations: int = Field(
        ge=0,
        le=_WHOLE,
        description="Sum over its matrix products of MACs x the bits of both operands (32 if not "
        "quantized), one image; with attention.",
    )


class InputRecord(_Schema):
    """A file that a job read."""

    path: str = Field(description="Where the file was.")
    sha256: str | None = Field(description="SHA-256 of its content; null if it was missing.")
    job_id: str | None = Field(description="The job that made it; null for a user's file.")


class CheckpointFacts(_Schema):
    """The backbone that a job made or scored."""

    name: str = Field(description="Its name in the suite.")
    method: str = Field("-", description="How it was pretrained, as given in its file.")
    architecture: str = Field("-", description="Its network.")
    pretraining: str | None = Field(
        None,
        description="The name that it shares with the pretrainings which differ from it in the seed "
        "alone; null: not known.",
    )
    pretrain_seed: int | None = Field(
        None, ge=0, le=_WHOLE, description="Its pretraining seed; null: not known."
    )
    sha256: str | None = Field(None, description="SHA-256 of its file; null if it was not read.")


class Result(_Schema):
    """The outcome of one job."""

    schema_version: Literal[2, 3] = Field(description="Version of this layout.")
    job_id: str = Field(description="Content hash that names the job and its folder.")
    question: str = Field(description="Hash of recipe and checkpoint name, without file contents.")
    stage: str = Field(description="The package that did the work.")
    protocol_version: int = Field(
        ge=0,
        le=_WHOLE,
        description="The stage's version; numbers of different versions are not comparable.",
    )
    status: Literal["completed", "failed", "skipped"] = Field(description="How the job ended.")
    reason: str | None = Field(None, description="Why it failed or was skipped; null if completed.")
    measurements: tuple[Measurement, ...] = Field((), description="The numbers; none if it failed.")
    precisions: tuple[str, ...] = Field(description="Bit-widths that were planned.")
    costs: dict[str, Cost] = Field(
        default_factory=dict, description="Cost of the backbone by precision, where counted."
    )
    recipe: dict[str, Any] = Field(description="The whole recipe, including defaults.")
    inputs: dict[str, InputRecord] = Field(description="The files it read, by recipe field.")
    identity: dict[str, Any] = Field(
        description="The stage's facts that determine which results are comparable."
    )
    checkpoint: CheckpointFacts = Field(description="The backbone made or scored.")
    artifacts: dict[str, str] = Field(
        default_factory=dict, description="Files it made, relative to its folder."
    )
    artifact_sha256: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of each of these files."
    )
    details: dict[str, Any] = Field(
        default_factory=dict, description="Further details from the stage."
    )
    log_tail: tuple[str, ...] = Field((), description="Last lines of the log of a failed job.")
    versions: dict[str, str | None] = Field(
        default_factory=dict, description="Versions of the software; null: not installed."
    )
    device: str | None = Field(None, description="What it ran on; null if it did not start.")
    seconds: float | None = Field(None, description="Time from start to end, in s.")
    peak_memory_mb: float | None = Field(None, description="Largest resident memory, in MiB.")
    peak_gpu_memory_mb: float | None = Field(None, description="Largest allocation, in MiB.")
    finished: str | None = Field(
        None, description="When it ended, UTC, ISO 8601; null: not recorded."
    )

    @property
    def facts(self) -> dict[str, Any]:
        """The recipe and the identity together, as `Job.facts`."""
        return {**self.recipe, **self.identity}


def write_result(folder: Path, result: Result) -> None:
    """Write `result` into `folder`, atomically and durably."""
    write_text(folder / RESULT, result.model_dump_json(indent=2) + "\n")


def read_result(folder: Path | str) -> Result | None:
    """Return the result in a job's folder, or None if there is no valid one."""
    found = _load(folder)
    if not isinstance(found, _Unusable):
        return found
    if (found.path, found.why) not in _reported:
        _reported.add((found.path, found.why))
        _logger.warning("%s", found)
    return None


def obstacle(folder: Path) -> str | None:
    """Say why the job of `folder` must not run: its result file is not to be replaced."""
    found = _load(folder)
    return found.refusal if isinstance(found, _Unusable) else None


def make_room(folder: Path) -> str | None:
    """Rename a result file that is damaged, so that its job can write another; call under its claim.

    Returns:
        Why the job must not run, as `obstacle`; None: it may.
    """
    found = _load(folder)
    if not isinstance(found, _Unusable):
        return None
    if found.refusal is None:
        count = len([*folder.glob(f"{ASIDE}*")])
        aside = folder / (f"{ASIDE}.{count + 1}" if count else ASIDE)
        found.path.rename(aside)
        _logger.warning("%s was renamed to %s, and its job runs again.", found.path, aside.name)
    return found.refusal


def belongs(result: Result, folder: Path | str) -> bool:
    """Say whether a result is where it may be: in its job's folder, or in one that no job's id names."""
    own = os.path.basename(folder)
    return result.job_id == own or not _JOB_ID.fullmatch(own)


def find_results(runs_dir: Path) -> Iterator[Result]:
    """Yield every valid result under `runs_dir`, each job's once, in the order of folders."""
    seen = set()
    for path in sorted(Path(runs_dir).glob(f"*/{RESULT}"), key=_own_folder_first):
        result = read_result(path.parent)
        if result is not None and result.job_id not in seen:
            seen.add(result.job_id)
            yield result


def job_folder(runs_dir: Path, job_id: str) -> Path:
    """Return a job's folder, by its id or, of a job that ran by itself, by the result in it."""
    folder = runs_dir / job_id
    if folder.exists() or not runs_dir.is_dir():
        return folder
    return _named_otherwise(runs_dir, runs_dir.stat().st_mtime_ns).get(job_id, folder)


@cache
def _named_otherwise(runs_dir: Path, changed: int) -> dict[str, Path]:
    """Return the folders that are not named by a job's id, by the job in them.

    `changed`, when a folder last came or went, makes the cache forget.
    """
    names = (name for name in sorted(os.listdir(runs_dir)) if not _JOB_ID.fullmatch(name))
    folders = (runs_dir / name for name in names if (runs_dir / name / RESULT).is_file())
    found = [(read_result(folder), folder) for folder in folders]
    return {result.job_id: folder for result, folder in reversed(found) if result is not None}


def _own_folder_first(path: Path) -> tuple[bool, Path]:
    return not _JOB_ID.fullmatch(path.parent.name), path


@dataclass(frozen=True)
class _Unusable:
    """A result file that is not one, and why; `stays`: what to do so that its job can run."""

    path: Path
    why: str
    stays: str | None = None

    @property
    def refusal(self) -> str | None:
        if self.stays is None:
            return None
        return f"{self.path} {self.why}; the job was not run, and the file stays. {self.stays}"

    def __str__(self) -> str:
        if self.stays is None:
            return (
                f"{self.path} is not a valid result ({self.why}); it is ignored. When its suite "
                "runs, the file is set aside under another name, and the job runs again."
            )
        return f"{self.path} {self.why}; it is ignored, and its job does not run. {self.stays}"


def _load(folder: Path | str) -> Result | _Unusable | None:
    name = f"{folder}/{RESULT}"  # a runs folder may have 100,000: no path object for each
    try:
        text = read_regular(name, limit=MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, NotAFileError) as error:
        why = f"cannot be read ({error.strerror if isinstance(error, OSError) else error})"
        return _Unusable(
            Path(name), why, "Make it readable, or rename it to have the job run again."
        )
    try:
        result = Result.model_validate_json(text)
    except ValidationError:
        result = _explained(Path(name), text)
        if isinstance(result, _Unusable):
            return result
    if not belongs(result, folder):
        return _Unusable(Path(name), f"it is the result of job {printable(result.job_id)}")
    return result


def _explained(path: Path, text: bytes) -> Result | _Unusable:
    """Read a file step by step, to say what is wrong with one that is no result of this layout."""
    try:
        content = from_json(text)
        return Result.model_validate(content)
    except ValidationError as error:
        if (version := _version(content)) > SCHEMA_VERSION:
            why = f"was written by a newer release (schema_version {version})"
            return _Unusable(
                path,
                why,
                f"Update this one, which reads schema_version {SCHEMA_VERSION}, or use another folder.",
            )
        first = error.errors(include_url=False)[0]
        return _Unusable(path, printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
    except ValueError as error:
        return _Unusable(path, printable(f"{type(error).__name__}: {error}"))


def _version(content: Any) -> float:
    version = content.get("schema_version") if isinstance(content, dict) else None
    return version if isinstance(version, int | float) else 0
