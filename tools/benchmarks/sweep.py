"""`lowbit-bench bench sweep`: the overhead of a sweep with 2,000 empty jobs, and of its board."""

import importlib.util
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

import lowbit
from lowbit.tools.benchmarks import board
from lowbit.tools.benchmarks.timing import Case

BUDGET = 0.04  # s of overhead allowed per job
SEEDS = 1_000
_STAGE = """
from contextlib import nullcontext as process_group
from typing import ClassVar
from pydantic import BaseModel, ConfigDict

VERSION = 1

class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    cosmetic: ClassVar = frozenset({"name"})
    name: str = "quick"
    checkpoint: str | None = None
    seed: int = 0
    precisions: tuple[str, ...] = ("FP",)

def identity(recipe):
    return {"task": "classification", "dataset": "none", "protocol": "quick", "policy": "-",
            "policy_fingerprint": "-", "policy_on_board": True, "split_sha256": "0" * 64, "engine": "torch"}

def missing_data(recipe):
    return None

def work(recipe):
    return None

def run(recipe, folder):
    found = {"metric": "top1", "value": 50.0 + recipe.seed % 7, "unit": "%", "n": 100,
             "precision": "FP", "split": "test"}
    return {"measurements": [found]}
"""
_SUITE = """
name: quick
seeds: {seeds}
checkpoints:
  - {{name: first, path: first.pth}}
  - {{name: second, path: second.pth}}
transfer:
  - {{recipe: quick.yaml}}
"""


def cases(quick: bool) -> Iterator[Case]:
    """Plan a sweep, run it with one worker per core, then start it again when it is finished."""
    seeds = SEEDS // 10 if quick else SEEDS
    with tempfile.TemporaryDirectory() as folder, _quick_stage(Path(folder)):
        yield from _sweep(Path(folder), seeds)
    yield from board.cases(quick)


def _sweep(folder: Path, seeds: int) -> Iterator[Case]:
    from lowbit.benchmark.executors import local
    from lowbit.benchmark.planning.plan import plan
    from lowbit.benchmark.scheduling.schedule import Schedule

    suite = folder / "suite.yaml"
    suite.write_text(_SUITE.format(seeds=list(range(seeds))))
    (folder / "quick.yaml").write_text("name: quick\n")
    for name in ("first", "second"):
        (folder / f"{name}.pth").write_text(name)
    start = time.perf_counter()
    planned = plan(suite)
    jobs = len(planned.jobs)
    yield _case(f"plan, a job of {jobs:,}", (time.perf_counter() - start) / jobs)
    workers = local.usual_workers()
    schedule = Schedule(planned, folder / "runs")
    start = time.perf_counter()
    first: list[float] = []  # CPU seconds when the job server has started
    local.run(schedule, report=lambda job, result: first or first.append(_cpu_seconds()))
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - first[0]
    completed = sum(result.status == "completed" for result in schedule.done.values())
    assert completed == jobs, f"{completed} of {jobs} jobs completed"
    yield _case(f"local, a job of {jobs:,}, {workers} at once, by the clock", seconds / jobs)
    yield _case(f"local, a job of {jobs:,}, CPU time of all processes", cpu / (jobs - 1))
    schedule = Schedule(planned, folder / "runs")
    start = time.perf_counter()
    local.run(schedule)
    yield _case(f"local, a finished job of {jobs:,}", (time.perf_counter() - start) / jobs)


def _cpu_seconds() -> float:
    """Return the CPU time so far of this process, the job server and the jobs that ended."""
    server = forkserver._forkserver._forkserver_pid
    times = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[11:15]
    return time.process_time() + sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _case(name: str, seconds: float) -> Case:
    return Case(name, seconds, "budget", BUDGET, seconds / BUDGET, 1.0)


@contextmanager
def _quick_stage(folder: Path) -> Iterator[None]:
    """Replace transfer by a stage that does nothing, here and in the processes of jobs."""
    package, name = folder / "lowbit", "lowbit.transfer"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__ = {[str(package), *lowbit.__path__]!r}\n")
    (package / "transfer.py").write_text(_STAGE)
    before, path = sys.modules.pop(name, None), list(sys.path)
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(name, package / "transfer.py")
    sys.modules[name] = lowbit.transfer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lowbit.transfer)
    logging.getLogger("lowbit.benchmark").setLevel(logging.WARNING)
    try:
        yield
    finally:
        sys.path[:] = path
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = lowbit.transfer = before
