"""What a job takes of a machine: processes, one a GPU, and a share of the cores."""

import os
from collections import Counter
from collections.abc import Iterable

from lowbit.benchmark.planning.job import Job


def processes(job: Job) -> int:
    """Return in how many processes, one a GPU, the job trains."""
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
    return min(share, int(limit)) if limit.isdecimal() and int(limit) > 0 else share


def too_few_gpus(wanted: int, found: str, most: int) -> str:
    """Say why a job cannot run, and what to do."""
    return (
        f"The job asks for {wanted} GPUs, and {found}; it was not started. Run it where "
        f"there are {wanted}, or set num_gpus of its recipe to {max(1, most)}."
    )


class Gpus:
    """The GPUs of a machine, dealt out to jobs: the least used first.

    Args:
        names: as CUDA_VISIBLE_DEVICES names them; none: jobs run on the CPU.
        workers: jobs at once; each GPU takes its share of them.
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
