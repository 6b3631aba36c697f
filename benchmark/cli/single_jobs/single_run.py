"""Run one job from the command line and leave the result file that a suite's job leaves.

The folder has whatever name the user gave it, so it is not found by the job's id; what reads results
(`lowbit-bench leaderboard build|rescore|compare|bundle`) reads it all the same.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lowbit.benchmark.executors.resources import usage
from lowbit.benchmark.planning.job import File, Job, Label, Output
from lowbit.benchmark.recipes.job_command import MEASUREMENTS, read_job
from lowbit.benchmark.recipes.stages import get_stage
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.result_file import (
    InputRecord,
    Result,
    make_room,
    obstacle,
    read_result,
    write_result,
)
from lowbit.common.atomic_file import write_text
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.found_once import finding_once

_SUFFIXES = re.compile(r"(\.(pth|pt|tar|safetensors|pkl|ckpt|bin))+$")

Report = Callable[[dict[str, Any], Path], None]


@finding_once()
def run_job(
    stage: str, args: argparse.Namespace, *, leaves: Sequence[str], report: Report, process: int = 0
) -> None:
    """Run one job, write its measurements and its result to its folder, and report it.

    Raises:
        ValueError: as `read_job`, or what the stage raises; or the folder has a result that must stay.
        FloatingPointError: a measurement is not finite; there is no result.
    """
    recipe, folder = read_job(stage, args, leaves=leaves)
    folder.mkdir(parents=True, exist_ok=True)
    if why := obstacle(folder):
        raise ValueError(why)
    started = time.monotonic()
    returned = get_stage(stage).run(recipe, folder)
    if process:
        return
    outcome = {"recipe": recipe.model_dump(mode="json"), **returned}
    write_text(folder / MEASUREMENTS, json.dumps(outcome, indent=2) + "\n")
    count = getattr(args, "num_gpus", None) or getattr(recipe, "num_gpus", 1)
    leave_result(stage, recipe, folder, returned, started=started, processes=count)
    report(returned, folder)


def leave_result(
    stage: str,
    recipe: BaseModel,
    folder: Path,
    returned: Mapping[str, Any],
    *,
    started: float,
    processes: int = 1,
) -> None:
    """Write the result file of a job that a stage has run.

    Args:
        returned: by the stage.
        started: when the job began, by `time.monotonic`.
        processes: that shared it.

    Raises:
        FloatingPointError: a measurement is not finite; there is no result.
    """
    job, paths = plan_single(stage, recipe, folder)
    spent = usage(started, processes=processes)
    done = build_result.completed(job, returned, inputs=paths, folder=folder, usage=spent)
    make_room(folder)
    write_result(folder, done)


def plan_single(stage: str, recipe: BaseModel, folder: Path) -> tuple[Job, dict[str, Path]]:
    """Return the job of a recipe that ran by itself, and the files it read by recipe field.

    A file that another single run wrote counts as that job's output, as in a suite, so that both have
    equal ids; the board names its checkpoint after that run.
    """
    paths = {
        name: Path(value)
        for name in ("checkpoint", "detector")
        if (value := getattr(recipe, name, None)) is not None
    }
    inputs: dict[str, File | Output] = {}
    label = None
    for name, path in paths.items():
        made = _maker(path)
        if made is None:
            inputs[name] = File.at(path)
            continue
        inputs[name] = Output(*made[1:])
        facts = made[0].checkpoint
        label = label or Label(
            facts.name, facts.method, facts.architecture, facts.pretraining, facts.pretrain_seed
        )
        if name == "detector" and (backbone := made[0].inputs.get("checkpoint")):
            inputs["checkpoint"] = _source(backbone)
            paths = {"checkpoint": Path(backbone.path), **paths}
    label = label or _label(recipe, paths, folder)
    job = Job.plan(stage, recipe, inputs=inputs, label=label)
    if stage == "pretrain":
        facts = {name: job.facts.get(name) or "-" for name in ("method", "architecture")}
        job = replace(job, label=replace(label, **facts))
    return job, paths


def _maker(path: Path) -> tuple[Result, str, str] | None:
    """Return the result beside a file that says its job wrote it, the job's id and the artifact."""
    result = read_result(path.resolve().parent) if path.is_file() else None
    for name, sha256 in result.artifact_sha256.items() if result else ():
        if result.artifacts[name] == path.name and sha256 == file_sha256(path):
            return result, result.job_id, name
    return None


def _source(record: InputRecord) -> File | Output:
    return Output(record.job_id) if record.job_id else File(Path(record.path), record.sha256)


def _label(recipe: BaseModel, paths: Mapping[str, Path], folder: Path) -> Label:
    """Name a checkpoint after its file, or its folder where every file has that name."""
    architecture = getattr(recipe, "architecture", None) or "-"
    if getattr(recipe, "random_backbone", False):
        return Label(f"random {architecture}", method="random", architecture=architecture)
    path = paths.get("checkpoint") or paths.get("detector")
    if path is None:
        return Label(folder.resolve().name, architecture=architecture)
    name = _SUFFIXES.sub("", path.name)
    if name in ("checkpoint", "detector"):
        name = path.resolve().parent.name
    return Label(name, architecture=architecture)
