"""Run jobs on a Ray cluster, each where its GPUs, cores and memory are free.

The runner claims a job and Ray chooses a machine, where `remote_job` takes over the claim and runs the
job in its own process, as the local executor does. If a machine dies, its jobs run elsewhere. The
cluster must share a file system with the runs folder, the data and this code at the same paths.
"""

import contextlib
import logging
import os
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from lowbit.benchmark.executors import StoppedError
from lowbit.benchmark.executors.acquire_job import claim_job
from lowbit.benchmark.executors.disk_space import is_no_space
from lowbit.benchmark.executors.remote_job import GRACE, LostError, supervise
from lowbit.benchmark.executors.resources import Demands, Peaks
from lowbit.benchmark.executors.stop_signals import stop_signals
from lowbit.benchmark.executors.worker import Task
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.results.job_lock import HEARTBEAT, Claim, live_holder
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.scheduling.schedule import Schedule

_LOCAL = "local"  # the address of a Ray of one's own
# Read when Ray is imported; "0": this machine alone, whose processes listen on the loopback interface.
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_POLL = 0.5  # s between checks
_LOSSES = 3  # machines a job may lose before it is assumed to be the cause
_SETTINGS = (
    "LOWBIT_",
    "DETECTRON2_DATASETS",
    "OMP_NUM_THREADS",
)  # environment variables that jobs read, by prefix

_logger = logging.getLogger(__name__)


def run(
    schedule: Schedule,
    *,
    workers: int | None = None,
    report: Callable[[Job, Result], None] = lambda job, result: None,
    address: str | None = None,
) -> None:
    """Run every job of `schedule` that can run.

    Args:
        schedule: what to run.
        workers: jobs at a time; None: one per GPU of the cluster, or one per core without GPUs.
        report: called with each job that ends here.
        address: of a cluster, HOST:PORT, or auto for this machine's cluster; None: RAY_ADDRESS, or
            else a local Ray, which ends with the run.

    Raises:
        RecipeError: Ray is not installed, or there is no such cluster.
        StoppedError: SIGINT or SIGTERM arrived. Jobs were told to save their state; claims are released.
        OSError: a disk is full, or the cluster has no machine left; likewise.
    """
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    ray = _import_ray(address)
    schedule.ready()  # settles jobs that have results
    if not schedule.open:
        return
    with _connected(ray, address), stop_signals() as stop:
        runner = _Runner(ray, schedule, workers, report)
        try:
            while True:
                runner.fill()
                if not schedule.open:
                    return
                runner.wait()
                if stop.signum:
                    raise StoppedError(stop.signum)
        finally:
            runner.end()


@dataclass(frozen=True)
class _Submitted:
    job: Job
    claim: Claim


class _Runner:
    """The submitted jobs of one `run`, and the claims that no machine has taken over yet."""

    def __init__(self, ray: ModuleType, schedule: Schedule, workers: int | None, report: Callable):
        self._ray = ray
        self._schedule = schedule
        self._workers = workers
        self._report = report
        self._submitted: dict = {}  # Ray's reference -> _Submitted
        self._peaks = Peaks()
        self._lost: Counter[str] = Counter()  # machines, by job
        self._problems: dict[str, str] = {}  # why a job is not tried again
        self._next_beat = 0.0
        # By default, a GPU task would end its Ray worker, and with it the server that jobs are forked from.
        self._supervise = ray.remote(max_retries=0, max_calls=0, scheduling_strategy="SPREAD")(
            _supervise
        )
        for job in schedule.plan.jobs.values():
            if job.id in schedule.done:
                self._peaks.note(job, schedule.done[job.id])
        demands = self._demands()
        _logger.info("Ray: %s; up to %d jobs at once.", demands, demands.workers)

    def fill(self) -> None:
        """Submit the jobs that can run, and settle those that need no process."""
        demands = self._demands()
        while (free := demands.workers - len(self._submitted)) > 0:
            ready = self._schedule.ready(free)
            if not ready:
                return
            for job in ready:
                self._begin(job, demands)

    def wait(self) -> None:
        """Sleep until a job ends or the poll interval is over; collect results."""
        references = list(self._submitted)
        if references:
            self._ray.wait(references, timeout=_POLL)
            ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ended:
                self._take(reference)
        else:
            time.sleep(_POLL)
        if time.monotonic() >= self._next_beat:
            for submitted in self._submitted.values():
                if submitted.claim.held:  # no machine has started the job yet
                    submitted.claim.beat()
            self._next_beat = time.monotonic() + HEARTBEAT / 2

    def end(self) -> None:
        """Make the jobs save their states and exit; release the claims still held here."""
        for reference in self._submitted:
            self._ray.cancel(reference)
        end = time.monotonic() + GRACE + 5
        if self._submitted:
            references = list(self._submitted)
            self._ray.wait(references, num_returns=len(references), timeout=GRACE + 5)
        for submitted in self._submitted.values():
            submitted.claim.release()
            # Ray may report a task as cancelled while it is still exiting; it would be killed now.
            folder, token = self._schedule.folder(submitted.job), submitted.claim.token
            while time.monotonic() < end and _is_held(folder, token):
                time.sleep(0.1)
        self._submitted.clear()

    def _demands(self) -> Demands:
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not machines:
            raise ConnectionError("Ray has no machine left: the daemon (raylet) of each has ended")
        return Demands(machines, self._workers)

    def _begin(self, job: Job, demands: Demands) -> None:
        """Claim a job and submit it, or settle it."""
        problem = self._problems.get(job.id) or demands.problem(job)
        begun = claim_job(self._schedule, job, problem=problem)
        if isinstance(begun, Result):
            self._report(job, begun)
        if not isinstance(begun, Claim):
            return
        try:
            task = Task(
                job=job,
                inputs=self._schedule.inputs(job),
                folder=self._schedule.folder(job).resolve(),
                token=begun.token,
                threads=demands.threads,
            )
            asked = demands.of(job, self._peaks.of(job))
            reference = self._supervise.options(name=job.title, **asked).remote(
                task, os.getcwd(), _own_paths()
            )
        except BaseException:
            begun.release()
            raise
        self._submitted[reference] = _Submitted(job, begun)
        self._schedule.start(job)

    def _take(self, reference: object) -> None:
        """Handle what a task returned: a result, or a job that must be checked again."""
        submitted = self._submitted.pop(reference)
        job, result = submitted.job, None
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if is_no_space(error.cause):
                submitted.claim.release()
                raise error.cause from None
            if isinstance(error.cause, LostError):
                self._lose(job, error.cause)
            else:  # an error of Ray, not of the job
                self._problems[job.id] = f"{type(error.cause).__name__}: {error.cause}"
        except self._ray.exceptions.RayError as error:
            self._lose(job, error)
        submitted.claim.release()  # if no machine took it over
        if result is None:
            self._schedule.leave(job)
            return
        self._peaks.note(job, result)
        self._schedule.finish(job, result)
        self._report(job, result)

    def _lose(self, job: Job, error: Exception) -> None:
        """Record that a job's machine or its supervisor died; the job runs again a limited number of times."""
        self._lost[job.id] += 1
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if self._lost[job.id] < _LOSSES:
            _logger.warning("%s lost its machine and will run again. %s", job.title, said)
            return
        self._problems[job.id] = (
            f"MachineLost: {_LOSSES} machines were lost while they ran the job, which may be why; it "
            f"was given up. Give it a machine with more memory, and run the same command. Last, {said}"
        )


def _is_held(folder: Path, token: str) -> bool:
    holder = live_holder(folder)
    return holder is not None and holder.token == token


def _supervise(task: Task, folder: str, paths: list[str]) -> Result | None:
    """Run a job on the machine that Ray chose, in the runner's working folder and with its modules."""
    import ray

    # Ray cancels a task by SIGINT, which all that a shell starts in the background ignores, daemons too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Ray puts the folder of the runner's script first; there, tools/ would hide packages.
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
    with contextlib.suppress(FileNotFoundError):  # then no recipe has a relative path
        os.chdir(folder)
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return supervise(replace(task, gpus=tuple(gpus)))


def _own_paths() -> list[str]:
    """Return the import path without that of Python and its installed packages."""
    theirs = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    return [path for path in sys.path if path and not path.startswith(theirs)]


def _import_ray(address: str) -> ModuleType:
    before = os.environ.get(_CLUSTERS)
    if address == _LOCAL:
        os.environ.setdefault(_CLUSTERS, "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RecipeError(
            "Ray is not installed; nothing was run. Install it, pip install -r requirements-ray.txt, "
            "or leave --executor out to use this machine alone."
        ) from error
    finally:
        if before is None:
            os.environ.pop(_CLUSTERS, None)
    return ray


@contextlib.contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send usage statistics
    settings = {k: v for k, v in os.environ.items() if k.startswith(_SETTINGS)}
    options = {"include_dashboard": False} if address == _LOCAL else {}
    before = signal.getsignal(signal.SIGTERM)  # Ray replaces it
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": {**settings, "PYTHONPATH": os.pathsep.join(_own_paths())}},
            log_to_driver=False,
            configure_logging=False,
            **options,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"There is no Ray cluster at {address} ({' '.join(str(error).split())}); nothing was run. "
            "Start one with `ray start --head`, or leave --address out to run on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)
