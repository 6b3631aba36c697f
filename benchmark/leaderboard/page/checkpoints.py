"""The section of single checkpoints: loading, numbers, detections, commands and citations."""

import io
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from lowbit.benchmark.leaderboard.page.citations import citations
from lowbit.benchmark.leaderboard.page.curves import plain
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import (
    MEASURED,
    OWN,
    RANKED_TASKS,
    metric_name,
    precision_rank,
    shown,
)
from lowbit.benchmark.results.result_file import (
    BIT_OPERATIONS,
    WEIGHT_BYTES,
    Result,
    job_folder,
    read_result,
)
from lowbit.common.input_files.regular_file import check_regular

CELL = ("value", "sd", "low", "high", "n_seeds", "rank")
"""What a number holds, in this order."""

_LINE = (
    "task",
    "dataset",
    "protocol",
    "training",
    "engine",
    "metric",
    "split",
    "image_size",
    "policy",
    "policy_fingerprint",
    "source",
    "group",
)
_JOB = tuple(column for column in _LINE if column not in ("metric", "split", "group"))
_NAMES = 6  # of tensors that a report lists
_PICTURES = 2  # of a job
BUDGET = 1_200_000  # bytes of all pictures of a page
_WIDTH = 480  # pixels
_QUALITY = 72
_LINES = 3  # whose jobs are asked how the checkpoint was loaded


class Thumbnails:
    """Makes data URIs of pictures until the page's budget is spent."""

    def __init__(self, budget: int = BUDGET):
        self._left = budget

    def make(self, path: Path) -> dict[str, Any] | None:
        """Return a picture, shrunk: `image` (a data URI), `width` and `height`.

        None if it cannot be read or the budget is spent.
        """
        if self._left <= 0:
            return None
        try:
            check_regular(path)
            with Image.open(path, formats=["PNG", "JPEG"]) as picture:
                picture.thumbnail((_WIDTH, _WIDTH))
                buffer = io.BytesIO()
                picture.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
        self._left -= buffer.tell()
        image = f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
        return {"image": image, "width": picture.width, "height": picture.height}


def content(source: Source) -> dict[str, Any]:
    """Return what is known of each checkpoint, by name; empty where none was scored."""
    frame, folded = source.tables.frame, source.tables.folded
    own = folded[shown(folded)]
    if own.empty:
        return {}
    precisions = sorted(set(own["precision"]), key=precision_rank)
    jobs = frame[frame["source"].isin(OWN) & (frame["status"] == "completed")]
    jobs = jobs.drop_duplicates(["job_id", "precision"])
    lines, of_jobs = _lines(own, precisions), _jobs(jobs)
    costs, pictures = _costs(jobs, precisions), Thumbnails()
    labels = _labels(own)
    found = []
    for name in sorted(labels):
        methods, architectures, policies = labels[name]
        result = _any_result(source.runs_dir, of_jobs[name])
        found.append(
            {
                "name": name,
                "methods": sorted(methods),
                "architectures": sorted(architectures),
                "lines": [_with_jobs(line, of_jobs[name]) for line in lines[name]],
                "costs": costs.get(name, []),
                "loading": _loading(result),
                "pretraining": _pretraining(source.runs_dir, result),
                "pictures": _pictures(source.runs_dir, of_jobs[name], pictures),
                "cite": citations(methods, policies),
            }
        )
    return {"cell": CELL, "precisions": precisions, "checkpoints": found}


def _labels(own: pd.DataFrame) -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Return the methods, architectures and policies of each checkpoint."""
    found: dict[str, tuple[set[str], ...]] = defaultdict(lambda: (set(), set(), set()))
    columns = ["checkpoint", "method", "architecture", "policy"]
    for name, *facts in own[columns].drop_duplicates().itertuples(index=False, name=None):
        for names, fact in zip(found[name], facts, strict=True):
            names.add(fact)
    return found


def _lines(own: pd.DataFrame, precisions: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return each checkpoint's lines of numbers: facts, and a cell a precision."""
    place = {precision: number for number, precision in enumerate(precisions)}
    cells = zip(*(plain(own[column]) for column in CELL), strict=True)
    facts = own[["checkpoint", *_LINE]].itertuples(index=False, name=None)
    lines: dict[str, dict[tuple, list]] = defaultdict(dict)
    for (name, *line), precision, cell in zip(facts, own["precision"], cells, strict=True):
        row = lines[name].setdefault(tuple(map(str, line)), [None] * len(precisions))
        row[place[precision]] = cell
    return {
        name: [
            dict(zip(_LINE, line, strict=True))
            | {"metric": metric_name(line[_LINE.index("metric")]), "cells": row}
            for line, row in found.items()
        ]
        for name, found in lines.items()
    }


def _jobs(jobs: pd.DataFrame) -> dict[str, dict[tuple[str, ...], dict[str, list[str]]]]:
    """Return the jobs behind each checkpoint's numbers: id and precisions, by facts of the line."""
    found: dict[str, dict] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    scored = jobs[jobs["task"].isin(RANKED_TASKS)].sort_values(["seed", "job_id"])
    columns = ["checkpoint", "job_id", "precision", *_JOB]
    for name, job_id, precision, *line in scored[columns].itertuples(index=False, name=None):
        found[name][tuple(map(str, line))][job_id].append(precision)
    return found


def _with_jobs(line: dict[str, Any], jobs: dict[tuple[str, ...], dict]) -> dict[str, Any]:
    """Add the jobs of measured numbers; another's are in the bundle they came in."""
    if line["source"] != MEASURED:
        return line | {"jobs": []}
    return line | {"jobs": list(jobs.get(tuple(line[column] for column in _JOB), ()))}


def _costs(jobs: pd.DataFrame, precisions: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return bytes and bit-operations by policy, image size and precision."""
    jobs = jobs.reindex(columns=list(dict.fromkeys((*jobs.columns, WEIGHT_BYTES, BIT_OPERATIONS))))
    known = jobs[jobs[WEIGHT_BYTES].notna()]
    key = ["checkpoint", "policy", "policy_fingerprint", "image_size", "precision"]
    known = known.drop_duplicates(key)[[*key, WEIGHT_BYTES, BIT_OPERATIONS]]
    rows: dict[str, dict[tuple, dict]] = defaultdict(lambda: defaultdict(dict))
    for name, policy, _, size, precision, *cost in known.itertuples(index=False, name=None):
        rows[name][policy, str(size)][precision] = [int(number) for number in cost]
    return {
        name: [
            {"policy": policy, "image_size": size, "at": [at.get(p) for p in precisions]}
            for (policy, size), at in sorted(found.items())
        ]
        for name, found in rows.items()
    }


def _any_result(runs_dir: Path, jobs: dict[tuple[str, ...], dict]) -> Result | None:
    """Return the result of one job that loaded the checkpoint; of a transfer job if there is one."""
    measured = [line for line in jobs if line[_JOB.index("source")] == MEASURED]
    for line in sorted(measured, key=lambda line: line[_JOB.index("task")])[:_LINES]:
        job_id = next(iter(jobs[line]))
        if (result := read_result(job_folder(runs_dir, job_id))) is not None:
            return result
    return None


def _loading(result: Result | None) -> dict[str, Any] | None:
    """Return what was found when the checkpoint's file was loaded."""
    if result is None:
        return None
    report = result.details.get("load_report") or result.details.get("start") or {}
    lists = {name: report.get(name) or [] for name in ("missing", "mismatched", "unused")}
    kept = ("format", "matched", "total", "share", "guessed")
    return {
        "sha256": result.checkpoint.sha256,
        **{name: report[name] for name in kept if name in report},
        **{name: {"count": len(x), "names": x[:_NAMES]} for name, x in lists.items()},
        "warnings": list(report.get("warnings") or ()),
        "versions": {name: version for name, version in result.versions.items() if version},
        "device": result.device,
    }


def _pretraining(runs_dir: Path, result: Result | None) -> dict[str, Any] | None:
    """Return the job that made the checkpoint, where one here did."""
    made = result and result.inputs.get("checkpoint")
    if not made or made.job_id is None:
        return None
    origin = read_result(job_folder(runs_dir, made.job_id))
    facts = (
        "name",
        "dataset",
        "framework",
        "pairing",
        "epochs",
        "batch_size",
        "image_size",
        "seed",
    )
    recipe = origin.recipe if origin else {}
    return {
        "job": made.job_id,
        "recipe": {name: recipe[name] for name in facts if recipe.get(name) is not None},
        "seconds": origin.seconds if origin else None,
    }


def _pictures(
    runs_dir: Path, jobs: dict[tuple[str, ...], dict], thumbnails: Thumbnails
) -> list[dict[str, Any]]:
    """Return a few pictures of what was detected, truth beside detections."""
    found = []
    for line, by_id in sorted(jobs.items()):
        facts = dict(zip(_JOB, line, strict=True))
        if facts["task"] != "detection" or facts["source"] != MEASURED:
            continue
        job_id, precisions = next(iter(by_id.items()))
        result = read_result(job_folder(runs_dir, job_id))
        paths = (
            list(pictures_of(job_folder(runs_dir, job_id), result.artifacts))[:_PICTURES]
            if result
            else []
        )
        for path in paths:
            if (picture := thumbnails.make(path)) is not None:
                title = (facts["dataset"], facts["protocol"], facts["training"])
                words = [word for word in (*title, "/".join(precisions)) if word != "-"]
                found.append({"title": " · ".join(words), **picture})
    return found


def pictures_of(folder: Path, artifacts: dict[str, str]) -> Iterator[Path]:
    """Yield the pictures among a job's artifacts, in the order of their names, none from outside."""
    for name, path in sorted(artifacts.items()):
        if name.startswith("picture_") and ".." not in Path(path).parts:
            yield folder / Path(path).relative_to(Path(path).anchor)
