"""A full disk stops the sweep with one message, loses nothing, and fails no job."""

import errno
import os

import pytest
import torch

from lowbit.benchmark.executors import disk_space, local
from lowbit.benchmark.executors.disk_space import NoSpaceError, describe_fullest, is_no_space
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.common import atomic_file
from tests.benchmark.executors.test_local import alive, locks

TENSORS = {"weight": torch.zeros(10_000)}


def _to_file(save):
    with open("/dev/full", "wb") as file:
        save(file)


WRITES = {
    "python": lambda: _to_file(lambda file: file.write(b"x" * 10_000)),
    "torch by name": lambda: torch.save(TENSORS, "/dev/full"),
    "torch to a file": lambda: _to_file(lambda file: torch.save(TENSORS, file)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_writer_s_error_is_recognized(write):
    with pytest.raises(Exception) as caught:
        write()
    assert is_no_space(caught.value)


def test_texts_quotas_and_causes_are_recognized_and_nothing_else():
    quota = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    told = OSError(f"Caught OSError in DataLoader worker process 0.\n{quota}")
    raised = RuntimeError("unexpected pos 704 vs 598")
    raised.__context__ = quota
    rust = Exception("I/O error: No space left on device (os error 28)")
    assert all(map(is_no_space, (quota, told, raised, rust)))
    others = (OSError(errno.EACCES, "denied"), MemoryError(), SystemExit(75), ValueError("space"))
    assert not any(map(is_no_space, others))
    looped = ValueError("a")
    looped.__cause__, looped.__context__ = looped, looped
    assert not is_no_space(looped)


def test_the_fullest_disk_is_named(monkeypatch):
    usage = {"/": (100, 90, 10), "/full": (10**9, 10**9, 0), "/dev/shm": (64, 0, 64)}
    Usage = type(disk_space.shutil.disk_usage("/"))
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: Usage(*usage[str(path)]))
    monkeypatch.setattr(disk_space.os.path, "ismount", lambda path: str(path) in usage)
    monkeypatch.setattr(disk_space.Path, "is_dir", lambda path: True)
    assert describe_fullest("/full/runs") == (
        "No space is left on the disk at /full (0 bytes of 1.0 GB free)"
    )


@pytest.mark.parametrize("how", ["full disk", "full disk, says torch"])
def test_a_job_that_finds_no_space_stops_the_sweep(bench, request, capfd, how):
    if "torch" in how:
        request.getfixturevalue("with_torch")
    full = {"recipe": "transfer.yaml", "overrides": {"behave": how}}
    planned = bench.plan(transfer=[full, {"recipe": "transfer.yaml"}])
    assert bench.main("--workers", "1") == 2
    said = capfd.readouterr().err
    assert said.count("No space is left on the disk at /") == 1
    assert "Nothing is lost: free some space and run the same command" in said
    pretrain, stopped, other = planned.jobs.values()
    assert bench.result(pretrain).status == "completed"
    assert bench.result(stopped) is None and bench.result(other) is None
    assert (bench.runs / stopped.id / "state.txt").exists()
    assert (
        "No space is left on a disk; the job stopped."
        in (bench.runs / stopped.id / "log.txt").read_text()
    )
    assert locks(bench) == []
    assert not any(alive(pid) for pid in bench.processes())


def test_jobs_beside_it_are_told_to_stop(bench):
    ways = [{"sleep": 60}, {"behave": "full disk", "sleep": 0.3}]
    planned = bench.plan(transfer=[{"recipe": "transfer.yaml", "overrides": way} for way in ways])
    schedule = Schedule(planned, bench.runs)
    with pytest.raises(NoSpaceError):
        local.run(schedule, workers=2)
    assert [bench.result(job) is None for job in planned.jobs.values()] == [False, True, True]
    assert locks(bench) == []
    assert not any(alive(pid) for pid in bench.processes())


def _full(*arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_runner_that_finds_no_space_says_so(bench, capsys, monkeypatch):
    bench.suite()
    monkeypatch.setattr(atomic_file.os, "fsync", _full)  # the plan is written first
    assert bench.main("--workers", "1") == 2
    assert capsys.readouterr().err.count("No space is left on the disk at /") == 1


@pytest.mark.parametrize(
    "where",
    [
        "lowbit.benchmark.results.job_lock.json.dumps",
        "lowbit.benchmark.scheduling.schedule.to_yaml",
    ],
)
def test_a_runner_that_finds_no_space_leaves_no_claim(bench, monkeypatch, where):
    planned = bench.plan()
    with monkeypatch.context() as patch:
        patch.setattr(where, _full)
        with pytest.raises(OSError, match="No space"):
            bench.run(planned)
    assert locks(bench) == []
    bench.run(planned)
    assert all(bench.result(job).status == "completed" for job in planned.jobs.values())
