"""A sweep's status is what its files say."""

import json
import os
import time
from dataclasses import asdict

import pytest

from lowbit.benchmark.monitoring.status import Reader, as_json
from lowbit.benchmark.planning.plan_file import planned_suites, remember
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.job_lock import LOCK, STALE, Holder, host_name
from lowbit.benchmark.results.result_file import read_result, write_result


@pytest.fixture
def sweep(bench):
    """A sweep of five jobs of which none has begun: its jobs, and a reader of its status."""
    files = [{"name": "A", "path": "a.pth"}]
    planned = bench.plan(checkpoints=files, seeds=[0, 1, 2, 3, 4])
    remember(bench.runs, planned)
    (suite,) = planned_suites(bench.runs)
    reader = Reader(bench.runs)
    return list(planned.jobs.values()), lambda: reader.read(suite)


def finish(bench, job, seconds=None, reason=None):
    folder = bench.runs / job.id
    folder.mkdir(exist_ok=True)
    usage = {"device": "cpu", "seconds": seconds}
    returned = {"measurements": [], "checkpoint": {}}
    if reason is None:
        result = build_result.completed(job, returned, inputs={}, folder=folder, usage=usage)
    else:
        result = build_result.failed(job, reason, inputs={}, folder=folder)
    write_result(folder, result)


def hold(bench, job, *, minutes, host=None, age=0.0):
    folder = bench.runs / job.id
    folder.mkdir()
    now = time.time()
    (folder / "recipe.yaml").touch()
    os.utime(folder / "recipe.yaml", (now - 60 * minutes,) * 2)
    holder = Holder(host or host_name(), os.getpid(), 0, "t")
    (folder / LOCK).write_text(json.dumps(asdict(holder)))
    os.utime(folder / LOCK, (now - age, now - age))


def test_every_state_is_told(bench, sweep):
    jobs, read = sweep
    finish(bench, jobs[0], seconds=60.0)
    finish(bench, jobs[1], reason="It broke.")
    hold(bench, jobs[2], minutes=0.5, host="node7 pid:[1]")
    hold(bench, jobs[3], minutes=9, host="node8 pid:[1]", age=2 * STALE)  # its heart has stopped
    status = read()
    assert [j.state for j in status.jobs] == [
        "completed",
        "failed",
        "running",
        "waiting",
        "waiting",
    ]
    running = status.jobs[2]
    assert (running.host, running.minutes) == ("node7", pytest.approx(0.5, abs=0.1))
    assert status.jobs[1].result.reason == "It broke."
    # One that has run half of its minute, and two that wait, one after another.
    assert status.seconds_left == pytest.approx(30 + 2 * 60, abs=5)
    plain = as_json(status)
    assert plain["counts"] == {
        "completed": 1, "running": 1, "waiting": 2, "failed": 1, "skipped": 0
    }  # fmt: skip
    assert plain["jobs"][1]["reason"] == "It broke."
    assert json.loads(json.dumps(plain)) == plain


def test_a_change_is_seen_and_only_that_is_read(bench, sweep, monkeypatch):
    jobs, read = sweep
    finish(bench, jobs[0], seconds=1.0)
    read()
    parsed = []
    monkeypatch.setattr(
        "lowbit.benchmark.monitoring.status.read_result",
        lambda folder: parsed.append(folder.name) or read_result(folder),
    )
    finish(bench, jobs[1], seconds=1.0)
    assert len(read().of("completed")) == 2
    assert parsed == [jobs[1].id]


def test_a_damaged_result_counts_as_waiting(bench, sweep):
    jobs, read = sweep
    finish(bench, jobs[0], seconds=1.0)
    (bench.runs / jobs[0].id / "result.json").write_text("{")
    assert read().jobs[0].state == "waiting"
    assert read().seconds_left is None


def test_the_last_results_come_first(bench, sweep):
    jobs, read = sweep
    for place, job in enumerate(jobs[:3]):
        finish(bench, job, seconds=1.0)
        os.utime(bench.runs / job.id / "result.json", (1e9 + place,) * 2)
    assert [j.job.id for j in read().last] == [job.id for job in reversed(jobs[:3])]
