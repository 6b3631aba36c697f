"""Resources of jobs on a machine or cluster: processes (one per GPU), cores and memory."""

import os
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results.result_file import Result

_ROOM = 1.2  # requested memory over what such a job used before
_MB = 2**20
_COUNT = re.compile("0*[1-9][0-9]{0,5}")  # of threads


def processes(job: Job) -> int:
    """Return the number of processes, one per GPU, of a job."""
    return job.recipe.get("num_gpus") or 1


def visible_gpus() -> list[str]:
    """Return the GPUs this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (
        [v.strip() for v in visible.split(",")][:count] if visible else list(map(str, range(count)))
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def share_of_threads(cores: int, workers: int) -> int:
    """Return a job's share of the cores, or fewer where OMP_NUM_THREADS says so."""
    share = max(1, cores // workers)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if _COUNT.fullmatch(limit) else share


def usage(started: float, *, processes: int) -> dict[str, Any]:
    """Return the device, the seconds and the peak memory of a job in this process.

    Args:
        started: `time.monotonic()` at its start.
        processes: how many it ran in.
    """
    import torch

    on_gpu = torch.cuda.is_initialized()
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "device": f"{processes} x {device}" if processes > 1 else device,
        "seconds": round(time.monotonic() - started, 3),
        # macOS counts bytes, Linux KiB.
        "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20, 1)
        if on_gpu
        else None,
    }


def too_few_gpus(wanted: int, found: str, most: int) -> str:
    """Say why a job cannot run, and what to do."""
    return (
        f"The job asks for {wanted} GPUs, and {found}; it was not started. Run it where "
        f"there are {wanted}, or set num_gpus of its recipe to {max(1, most)}."
    )


class Gpus:
    """Assign the GPUs of a machine to jobs, the least used first.

    Args:
        names: as CUDA_VISIBLE_DEVICES names them; none: jobs run on the CPU.
        workers: jobs at a time; each GPU takes its share of them.
    """

    def __init__(self, names: Iterable[str], workers: int):
        self._jobs = Counter(dict.fromkeys(names, 0))
        self._capacity = -(-workers // max(1, len(self._jobs)))

    def __len__(self) -> int:
        return len(self._jobs)

    def take(self, count: int) -> tuple[str, ...] | None:
        """Return `count` GPUs for a job; none on a machine without, None where they are not free."""
        free = [name for name, jobs in self._jobs.items() if jobs < self._capacity]
        if not self._jobs:
            return ()
        if len(free) < count:
            return None
        taken = tuple(sorted(free, key=self._jobs.__getitem__)[:count])
        self._jobs.update(taken)
        return taken

    def give(self, taken: Iterable[str]) -> None:
        """Take GPUs back from a job that has ended."""
        self._jobs.subtract(taken)


class Demands:
    """The resources that each job requests on a cluster.

    A job gets one GPU per process, and the cores available per GPU; without GPUs it gets one core, or
    more if fewer `workers` are requested.

    Args:
        machines: each machine's resources in Ray's terms: CPU, GPU, memory (bytes).
        workers: jobs at a time; None: as many as there are GPUs, or cores without GPUs.
    """

    def __init__(self, machines: Sequence[Mapping[str, float]], workers: int | None = None):
        self._machines = machines
        self._gpus = [m for m in machines if m.get("GPU", 0) >= 1]
        cores = int(sum(m.get("CPU", 0) for m in machines))
        self._cores = 1  # for a process
        if self._gpus:
            self._cores = max(1, int(min(m.get("CPU", 0) // m["GPU"] for m in self._gpus)))
        elif workers:
            fewest = int(min(m.get("CPU", 0) for m in machines))
            self._cores = max(1, min(cores // workers, fewest))
        self.workers = workers or max(1, int(sum(m["GPU"] for m in self._gpus)) or cores)

    @property
    def threads(self) -> int:
        """Threads of a job's process."""
        return share_of_threads(self._cores, 1)

    def problem(self, job: Job) -> str | None:
        """Say why no machine can run the job; None if one can."""
        wanted, most = self._wanted_gpus(job), self._most("GPU")
        if wanted <= most:
            return None
        return too_few_gpus(wanted, f"no machine of the cluster has more than {most}", most)

    def of(self, job: Job, peak_mb: float | None = None) -> dict[str, Any]:
        """Return the job's request as options of a Ray task.

        Args:
            job: the job.
            peak_mb: largest memory that such a job used before; None: not known, none is requested.
        """
        asked = {
            "num_cpus": min(processes(job) * self._cores, self._most("CPU")),
            "num_gpus": self._wanted_gpus(job),
        }
        if peak_mb is not None:
            asked["memory"] = min(int(_ROOM * peak_mb * _MB), self._most("memory"))
        return asked

    def __str__(self) -> str:
        gpus = int(sum(m["GPU"] for m in self._gpus))
        return (
            f"{len(self._machines)} machines, {int(sum(m.get('CPU', 0) for m in self._machines))} "
            f"cores, {gpus} GPUs"
        )

    def _wanted_gpus(self, job: Job) -> int:
        return processes(job) if self._gpus and job.recipe.get("device") != "cpu" else 0

    def _most(self, resource: str) -> int:
        return int(max((m.get(resource, 0) for m in self._machines), default=0))


class Peaks:
    """Peak memory of completed jobs, by stage, recipe and architecture."""

    def __init__(self):
        self._peaks: dict[tuple, float] = {}

    def note(self, job: Job, result: Result) -> None:
        """Record a job's peak memory."""
        if result.peak_memory_mb is not None:
            kind = _kind(job)
            self._peaks[kind] = max(result.peak_memory_mb, self._peaks.get(kind, 0.0))

    def of(self, job: Job) -> float | None:
        """Return the largest peak memory of such a job, in MiB; None if none has run."""
        return self._peaks.get(_kind(job))


def _kind(job: Job) -> tuple:
    return job.stage, job.recipe.get("name"), job.label.architecture
