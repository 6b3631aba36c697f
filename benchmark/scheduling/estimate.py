"""Estimate the time and disk space of jobs before they run.

Seconds come from the first of these that is known in the runs folder, on a device like the one here:

    recipe      the median of the jobs of the same recipe and network, whatever seed and checkpoint
    throughput  counted operations (`lowbit.common.compute_cost`) over the operations a second of the completed jobs
                of the same stage and protocol, else stage, else all
    assumed     the same, at `GPU_RATE` or `CPU_RATE` operations a second

What jobs share (features, a full-precision start) is counted for the first of them alone.
"""

import json
import logging
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from lowbit.benchmark.planning.job import File, Job, canonical_json
from lowbit.benchmark.recipes.stages import STAGES, get_stage
from lowbit.benchmark.recipes.yaml_files import validate
from lowbit.benchmark.results.result_file import RESULT, Result, read_result
from lowbit.benchmark.scheduling.job_queue import shared_by
from lowbit.common.compute_cost import Work

GPU_RATE = 2e13  # operations a second: ResNet-50 trained at 800 images a second, an A100 in TF32
CPU_RATE = 3.5e10  # on one core: this suite's demo, measured
_SAMPLE = 500  # other results that are read; names are hashes, so any subset is a fair sample
_LEAST = 1e9  # operations; a smaller job's time is mostly its start

Source = Literal["recipe", "throughput", "assumed"]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """The expected time and disk space of a job.

    Attributes:
        seconds: with its share of the machine; None: nothing is known about jobs of its kind.
        source: where `seconds` comes from.
        operations: counted; None: could not be.
        disk: bytes that it leaves, with what it computes for others.
        follows: id of the job that computes what this one shares with it; None: itself.
    """

    seconds: float | None = None
    source: Source | None = None
    operations: float | None = None
    disk: int = 0
    follows: str | None = None

    @property
    def gpu_hours(self) -> float | None:
        """Hours on one GPU at `GPU_RATE`."""
        return None if self.operations is None else self.operations / GPU_RATE / 3600


UNKNOWN = Estimate()


class Estimator:
    """Learns from results, and estimates jobs.

    Args:
        device: what jobs run on: a GPU's name, or "cpu"; results of other devices say nothing.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._times: dict[str, list[float]] = defaultdict(list)
        self._done: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._computed: set[tuple[str, ...]] = set()
        self._seen: dict[str, tuple[str, Work | None, tuple[str, ...] | None]] = {}

    def learn(self, result: Result) -> None:
        """Learn from a result's time, if it completed on this kind of device."""
        if result.status != "completed" or not result.seconds or result.device != self.device:
            return
        if result.stage not in STAGES:  # written by a later version
            return
        architecture = result.checkpoint.architecture
        self._times[_kind(result, architecture)].append(result.seconds)
        work = _work(result, architecture)
        if work is None:
            return
        operations = work.operations
        if work.shared_operations and (what := shared_by(result)) not in self._computed:
            self._computed.add(what)
            operations += work.shared_operations
        if operations < _LEAST:
            return
        for key in _keys(result.stage, result.identity):
            self._done[key][0] += operations
            self._done[key][1] += result.seconds

    def estimate_all(self, jobs: Iterable[Job]) -> dict[str, Estimate]:
        """Return estimates by id, for jobs that run in this order."""
        found: dict[str, Estimate] = {}
        computed: dict[tuple[str, ...] | None, str | None] = dict.fromkeys(self._computed)
        usual: dict[tuple[str, bool], float] = {}
        for job in jobs:
            if job.id not in self._seen:
                architecture = _architecture(job)
                self._seen[job.id] = (
                    _kind(job, architecture),
                    _work(job, architecture),
                    shared_by(job),
                )
            kind, work, what = self._seen[job.id]
            shares = work is not None and work.shared_operations > 0
            first = shares and what not in computed
            follows = computed[what] if shares and not first else None
            if first:
                computed[what] = job.id
            if kind in self._times and (kind, first) not in usual:
                times = self._times[kind]
                usual[kind, first] = max(times) if first else statistics.median(times)
            estimate = self._estimate(job, work, first, usual.get((kind, first)))
            found[job.id] = replace(estimate, follows=follows)
        return found

    def _estimate(self, job: Job, work: Work | None, first: bool, usual: float | None) -> Estimate:
        if work is None:
            return Estimate(usual, "recipe") if usual is not None else UNKNOWN
        operations = work.operations + first * work.shared_operations
        disk = work.disk + first * work.shared_disk
        if usual is not None:
            return Estimate(usual, "recipe", operations, disk)
        for key in _keys(job.stage, job.identity):
            if key in self._done:
                done, seconds = self._done[key]
                return Estimate(operations * seconds / done, "throughput", operations, disk)
        rate = CPU_RATE if self.device == "cpu" else GPU_RATE
        return Estimate(operations / rate, "assumed", operations, disk)


def estimator(runs_dir: Path, jobs: Mapping[str, Job], *, device: str | None = None) -> Estimator:
    """Return an estimator that has learned from the results of `jobs`, and a sample of others."""
    learned = Estimator(device or this_device())
    own = [runs_dir / job_id for job_id in jobs]
    others = (path.parent for path in runs_dir.glob(f"*/{RESULT}") if path.parent.name not in jobs)
    for folder in [*own, *sorted(others)[:_SAMPLE]]:
        if (result := read_result(folder)) is not None:
            learned.learn(result)
    return learned


def this_device() -> str:
    """Return the name of this machine's device, as results give it."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _architecture(job: Job) -> str:
    """Return the network of a job; "-" if its file does not say."""
    source = job.inputs.get("checkpoint")
    if job.label.architecture == "-" and isinstance(source, File) and source.sha256 is not None:
        return _stated(source)
    return job.label.architecture


@cache
def _stated(file: File) -> str:
    from lowbit.backbones.checkpoints.load import examine
    from lowbit.backbones.checkpoints.read_file import read

    try:
        return examine(read(file.path))[0].architecture
    except Exception as error:  # an estimate must stop no sweep; the job itself will report it
        _logger.debug("The network of %s is not known: %s", file.path, error)
        return "-"


def _keys(stage: str, identity: Mapping) -> tuple[tuple[str, ...], ...]:
    """Return the keys under which a rate is kept, the most specific first."""
    return (stage, str(identity.get("protocol"))), (stage,), ()


def _kind(job: Job | Result, architecture: str) -> str:
    """Return a key of jobs that take equally long: a recipe without seed, files and cosmetic fields."""
    left_out = {"seed", *job.inputs, *get_stage(job.stage).Recipe.cosmetic}
    fields = {key: value for key, value in job.recipe.items() if key not in left_out}
    return canonical_json([job.stage, architecture, fields])


def _work(job: Job | Result, architecture: str) -> Work | None:
    """Count a job's work; None if its stage cannot, or its images are missing."""
    named = {"architecture": architecture} if architecture != "-" else {}
    files = dict.fromkeys(job.inputs, "(not read)")
    return _counted(job.stage, canonical_json({**job.recipe, **files, **named, "seed": 0}))


@cache  # many jobs of a plan differ only in seed and checkpoint
def _counted(stage: str, recipe: str) -> Work | None:
    try:
        return get_stage(stage).work(validate(stage, json.loads(recipe)))
    except Exception as error:  # an estimate must stop no sweep
        _logger.debug("The work of a %s recipe is not known: %s", stage, error)
        return None
