"""Coverage: the state of every planned or finished job, and why its numbers are missing."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.planning.plan_file import PlannedJob
from lowbit.benchmark.results.comparability import OWN, precision_rank
from lowbit.benchmark.results.job_lock import live_holder
from lowbit.benchmark.results.records.make_record import TASKS
from lowbit.benchmark.results.result_file import read_result

STATES = ("done", "running", "waiting", "failed", "skipped")
_OF_STATUS = {"completed": "done", "failed": "failed", "skipped": "skipped"}
_CELL = ("checkpoint", "task", "dataset", "protocol", "training", "engine")
_LOGS = 40  # reasons whose log is shown
_LINES, _CHARACTERS = 20, 4000  # of a log

_Key = tuple[str, ...]


def content(source: Source) -> dict[str, Any]:
    """Return the state of every planned or finished job, by cell; empty where there is none.

    A cell is a checkpoint on a data set under a protocol at a precision; it counts its jobs (seeds) by
    state. Jobs that have not ended count as running while somebody holds them, else as waiting. A cell
    without any job is not planned.
    """
    cells = _finished(source.tables.frame)
    states, reasons = {}, _reasons(source.tables.frame)
    ended = set(source.tables.frame["job_id"])
    planned = {job.id: job for suite in source.tables.planned for job in suite.jobs}
    for job in planned.values():
        if job.id in ended:
            continue
        states[job.id], reason = _unfinished(source.runs_dir / job.id)
        for precision in job.precisions:
            cells[_key(job)][precision][STATES.index(states[job.id])] += 1
        if reason is not None:
            reasons[states[job.id], reason].append({"id": job.id, "title": job.title})
    if not cells:
        return {}
    precisions = sorted({p for row in cells.values() for p in row}, key=precision_rank)
    return {
        "states": STATES,
        "precisions": precisions,
        "rows": [
            dict(zip(_CELL, key, strict=True)) | {"cells": [row.get(p) for p in precisions]}
            for key, row in sorted(cells.items())
        ],
        "suites": list(_suites(source, states)),
        "missing": _missing(reasons, source.runs_dir),
    }


def _finished(frame: pd.DataFrame) -> dict[_Key, dict[str, list[int]]]:
    """Count the jobs that ended, by cell and precision."""
    own = frame[frame["source"].isin(OWN)]
    jobs = own.drop_duplicates(["job_id", "precision"])
    counts = jobs.groupby([*_CELL, "precision", "status"], sort=False).size()
    cells: dict[_Key, dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(lambda: [0] * len(STATES))
    )
    for (*key, precision, status), count in counts.items():
        cells[tuple(key)][precision][STATES.index(_OF_STATUS[status])] += count
    return cells


def _key(job: PlannedJob) -> _Key:
    task = TASKS.get(job.stage, job.stage)
    facts = {"task": task, "checkpoint": job.checkpoint, **job.facts}
    return tuple(str(facts.get(column) or "-") for column in _CELL)


def _unfinished(folder: Path) -> tuple[str, str | None]:
    """Return the state of a job that the frame does not show, and why it has no number."""
    if not folder.exists():
        return "waiting", None
    if live_holder(folder) is not None:
        return "running", None
    if (result := read_result(folder)) is not None:
        return _OF_STATUS[result.status], result.reason  # another job has answered its question
    return "waiting", None


def _suites(source: Source, unfinished: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield each suite with its jobs counted by state."""
    jobs = source.tables.frame.drop_duplicates("job_id")
    states = dict(zip(jobs["job_id"], jobs["status"].map(_OF_STATUS), strict=True)) | unfinished
    for suite in source.tables.planned:
        found = [states[job.id] for job in suite.jobs]
        if found:
            yield {"name": suite.name, "jobs": [found.count(state) for state in STATES]}


def _reasons(frame: pd.DataFrame) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Return the jobs that gave no number, by state and reason."""
    lost = frame[frame["source"].isin(OWN) & frame["status"].isin(("failed", "skipped"))]
    found = defaultdict(list)
    for job_id, rows in lost.groupby("job_id", sort=True):
        first = rows.iloc[0]
        precisions = sorted(set(rows["precision"]), key=precision_rank)
        words = [first[c] for c in ("checkpoint", "dataset", "protocol", "training")]
        words += ["/".join(precisions)]
        words += [] if pd.isna(first["seed"]) else [f"seed {int(first['seed'])}"]
        title = " · ".join(word for word in words if word != "-")
        found[first["status"], first["reason"]].append({"id": str(job_id), "title": title})
    return found


def _missing(
    reasons: dict[tuple[str, str], list[dict[str, str]]], runs_dir: Path
) -> list[dict[str, Any]]:
    """Return the reasons, those of failures and of most jobs first, each with the end of a log."""
    order = sorted(reasons.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1]))
    return [
        {
            "status": status,
            "reason": reason or "no reason was recorded",
            "jobs": jobs,
            "log": _log(runs_dir, jobs) if status == "failed" and number < _LOGS else [],
        }
        for number, ((status, reason), jobs) in enumerate(order)
    ]


def _log(runs_dir: Path, jobs: list[dict[str, str]]) -> list[str]:
    """Return the last lines of the log of the first of these jobs that left any."""
    for job in jobs[:3]:
        result = read_result(runs_dir / job["id"])
        if result is not None and result.log_tail:
            tail = "\n".join(result.log_tail[-_LINES:])[-_CHARACTERS:]
            return tail.split("\n")
    return []
