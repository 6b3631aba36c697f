"""Build the result of a job that ended."""

import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from lowbit.benchmark.planning.job import File, Job
from lowbit.benchmark.results.result_file import (
    SCHEMA_VERSION,
    CheckpointFacts,
    InputRecord,
    Result,
)
from lowbit.common.file_hash import file_sha256

LOG = "log.txt"
_TAIL = 20  # lines of a failed job's log that its result includes
_TAIL_BYTES = 64 * 1024  # searched for these lines
_PACKAGES = ("torch", "torchvision", "timm", "detectron2", "lowbit-bench")


def completed(
    job: Job,
    returned: Mapping[str, Any],
    *,
    inputs: Mapping[str, Path],
    folder: Path,
    usage: Mapping[str, Any],
) -> Result:
    """Make the result of a job whose stage returned.

    Args:
        job: the job.
        returned: the stage's measurements, artifacts, checkpoint and details.
        inputs: the files it read, by recipe field.
        folder: where its artifacts are.
        usage: device, seconds and peak memory.

    Raises:
        FloatingPointError: a measurement is not finite.
        ValueError: what the stage returned does not fit the schema.
    """
    for found in returned["measurements"]:
        if not math.isfinite(found["value"]):
            raise FloatingPointError(
                f"{found['metric']} at {found['precision']} is {found['value']}; nothing was "
                "recorded. The network has diverged: check the log, and lower the learning rate."
            )
    artifacts = dict(returned.get("artifacts") or {})
    facts = {k: v for k, v in (returned.get("checkpoint") or {}).items() if v is not None}
    known = {k: facts[k] for k in ("method", "architecture", "sha256") if k in facts}
    return _result(
        job,
        inputs,
        status="completed",
        checkpoint=CheckpointFacts(**{**_planned_checkpoint(job), **known}),
        measurements=tuple(returned["measurements"]),
        costs=dict(returned.get("costs") or {}),
        artifacts=artifacts,
        artifact_sha256={name: file_sha256(folder / path) for name, path in artifacts.items()},
        details=dict(returned.get("details") or {}),
        **usage,
    )


def failed(
    job: Job,
    reason: str,
    *,
    inputs: Mapping[str, Path],
    folder: Path,
    usage: Mapping[str, Any] | None = None,
) -> Result:
    """Make the result of a job that raised, died or could not start."""
    return _result(
        job, inputs, status="failed", reason=reason, log_tail=log_tail(folder), **(usage or {})
    )


def skipped(job: Job, reason: str) -> Result:
    """Make the result of a job that did not start: an input of it failed, or its data is missing."""
    return _result(job, {}, status="skipped", reason=reason)


def log_tail(folder: Path) -> tuple[str, ...]:
    """Return the last lines of a job's log, within a size limit."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-_TAIL:])


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of the relevant packages; None if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _result(job: Job, inputs: Mapping[str, Path], **facts: Any) -> Result:
    paths = {name: str(path) for name, path in inputs.items()}
    fields = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job.id,
        "question": job.question,
        "stage": job.stage,
        "protocol_version": job.version,
        "precisions": job.precisions,
        "recipe": {**job.recipe, **paths},
        "inputs": _records(job, inputs),
        "identity": dict(job.identity),
        "checkpoint": CheckpointFacts(**_planned_checkpoint(job)),
        "versions": dict(versions()),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Result.model_validate({**fields, **facts})


def _planned_checkpoint(job: Job) -> dict[str, str | int | None]:
    label = job.label
    return {
        "name": label.checkpoint,
        "method": label.method,
        "architecture": label.architecture,
        "pretraining": label.pretraining,
        "pretrain_seed": label.pretrain_seed,
    }


def _records(job: Job, inputs: Mapping[str, Path]) -> dict[str, InputRecord]:
    records = {}
    for name, source in job.inputs.items():
        if isinstance(source, File):
            records[name] = InputRecord(path=str(source.path), sha256=source.sha256, job_id=None)
        else:
            path = inputs.get(name)
            records[name] = InputRecord(
                path=str(path or ""),
                sha256=file_sha256(path) if path and path.is_file() else None,
                job_id=source.job_id,
            )
    return records
