"""One job on a machine of a cluster: what its supervisor makes of its end."""

import signal

import pytest

from lowbit.benchmark.executors import remote_job
from lowbit.benchmark.executors.disk_space import NoSpaceError
from lowbit.benchmark.executors.remote_job import LostError, supervise
from lowbit.benchmark.executors.worker import Task
from lowbit.benchmark.results.job_lock import LOCK, Claim
from lowbit.benchmark.scheduling.schedule import Schedule
from tests.benchmark.executors.test_local import alive, locks


@pytest.fixture
def submitted(bench):
    """Claim a job as a runner would, and return what it sends to a machine."""

    def _submitted(**overrides):
        entry = {"recipe": "transfer.yaml", "overrides": overrides}
        checkpoint = bench.folder / "made.pth"
        checkpoint.write_text("made elsewhere")
        planned = bench.plan(
            checkpoints=[{"name": "made", "path": str(checkpoint)}], transfer=[entry]
        )
        (job,) = planned.jobs.values()
        schedule = Schedule(planned, bench.runs)
        claim = Claim.take(schedule.folder(job))
        folder = schedule.prepare(job)
        return Task(job, schedule.inputs(job), folder.resolve(), claim.token, threads=1)

    return _submitted


def test_a_job_that_ends_gives_its_result_and_its_claim_back(bench, submitted):
    task = submitted()
    result = supervise(task)
    assert (result.status, result.job_id) == ("completed", task.job.id)
    assert bench.result(task.job) == result
    assert locks(bench) == []


def test_a_job_that_crashes_fails(bench, submitted):
    task = submitted(behave="abort")
    result = supervise(task)
    assert result.status == "failed"
    assert "SIGABRT" in result.reason
    assert bench.result(task.job) == result


def test_a_job_that_saved_its_state_has_no_result_yet(bench, submitted):
    assert supervise(submitted(behave="preempted")) is None
    assert locks(bench) == []


def test_a_job_that_the_machine_ended_may_run_elsewhere(bench, submitted):
    task = submitted(behave="terminate")
    with pytest.raises(LostError, match="SIGTERM"):
        supervise(task)
    assert bench.result(task.job) is None
    assert locks(bench) == []


def test_a_full_disk_is_no_failure_of_the_job(bench, submitted):
    task = submitted(behave="full disk")
    with pytest.raises(NoSpaceError, match="No space is left on the disk at /"):
        supervise(task)
    assert bench.result(task.job) is None
    assert locks(bench) == []


def test_who_stops_a_supervisor_stops_the_job(bench, submitted):
    task = submitted(sleep=300)

    def tick(*_):
        if bench.events("begin"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            supervise(task)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not any(alive(pid) for pid in bench.processes())
    assert bench.result(task.job) is None
    assert locks(bench) == []


def test_a_job_that_another_took_over_is_left_to_it(bench, submitted, monkeypatch):
    monkeypatch.setattr(remote_job, "_VISIBLE", 0.0)
    task = submitted()
    lock = task.folder / LOCK
    lock.write_text(lock.read_text().replace(task.token, "of another"))
    assert supervise(task) is None
    assert "of another" in lock.read_text()
    assert not bench.journal.exists()


def test_a_machine_without_the_runs_folder_says_so(tmp_path, submitted, monkeypatch):
    monkeypatch.setattr(remote_job, "_VISIBLE", 0.0)
    task = submitted()
    task = Task(task.job, task.inputs, tmp_path / "elsewhere", task.token, threads=1)
    with pytest.raises(
        FileNotFoundError, match="Put --runs-dir on a file system that all machines"
    ):
        supervise(task)
