"""Runs folders as finished jobs leave them, and submissions beside them, written in a line."""

import json
from pathlib import Path
from typing import Any

from lowbit.benchmark.results.result_file import Result, write_result
from lowbit.benchmark.results.verdicts import SUBMISSIONS, VERDICT
from tests.benchmark.board_frames import POLICY, SPLITS

FIXTURES = Path(__file__).with_name("result_files")


def make_result(job_id: str, **changes: Any) -> Result:
    """Return a linear probe's result at 4w4a.

    Args:
        job_id: its id.
        changes: name, origin and method of the checkpoint; dataset, seed; values by precision;
            or any field of the result.
    """
    given = {name: changes.pop(name, None) for name in ("name", "origin", "dataset", "seed")}
    values = changes.pop("values", {"4w4a": 90.0})
    name = given["name"] or "mine"
    measured = {"metric": "top1", "unit": "%", "n": 540, "stderr": 1.5, "split": "test"}
    fields = {
        "schema_version": 2,
        "job_id": job_id,
        "question": f"question {job_id}",
        "stage": "transfer",
        "protocol_version": 1,
        "status": "completed",
        "precisions": list(values),
        "recipe": {"seed": given["seed"] or 0},
        "inputs": {
            "checkpoint": {"path": "a.pth", "sha256": given["origin"] or name * 8, "job_id": None}
        },
        "identity": {
            "task": "classification",
            "dataset": given["dataset"] or "digits",
            "protocol": "linear",
            "image_size": 32,
            "engine": "torch",
            "policy": "ssql",
            "policy_fingerprint": POLICY["ssql"],
            "split_sha256": SPLITS["digits"],
        },
        "checkpoint": {"name": name, "method": "SSQL", "architecture": "resnet10_slim"},
    } | changes
    if fields["status"] == "completed":
        fields["measurements"] = [
            measured | {"precision": p, "value": v, "low": v - 3, "high": v + 3}
            for p, v in values.items()
        ]
    return Result.model_validate(fields)


def write(runs: Path, job_id: str, **changes: Any) -> Path:
    """Write a result into a runs folder and return its folder."""
    folder = runs / job_id
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder, make_result(job_id, **changes))
    return folder


def submit(runs: Path, name: str, sources: dict[str, str], *, reason: str = "checked") -> Path:
    """Write a verdict on jobs and return the folder that their results belong in."""
    folder = runs / SUBMISSIONS / name
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {job_id: {"source": source, "reason": reason} for job_id, source in sources.items()}
    verdict = {"schema_version": 1, "bundle_sha256": "b" * 64, "jobs": jobs}
    (folder / VERDICT).write_text(json.dumps(verdict))
    return folder
