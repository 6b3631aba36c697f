"""Runners that share a folder: however they meet, each job runs once and the folder ends the same."""

import contextlib
import os
import signal
import time
from collections import Counter

import pytest

from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.results import job_lock
from tests.reliability.blows import PATIENCE
from tests.reliability.runners import Runners
from tests.reliability.snapshots import differences, snapshot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

JOBS = 34


@pytest.fixture
def race(bench):
    """Return a function that runs a sweep of 34 jobs with some runners; and what it left."""
    suite = bench.suite(
        seeds=list(range(16)),
        transfer=[{"recipe": "transfer.yaml"}],
        detection=[{"recipe": "detection.yaml"}, {"recipe": "detection.yaml", "seeds": [99]}],
    )
    runners = Runners(suite, bench.runs, "--workers", "1", stages=STAGES)

    def run(preludes, meddle=lambda started: None):
        folder = bench.runs.with_name("ended")
        if bench.runs.exists():
            bench.runs.rename(folder.with_name(f"ended {time.monotonic_ns()}"))
        bench.journal.unlink(missing_ok=True)
        started = [runners.start(prelude=prelude) for prelude in preludes]
        meddle(started)
        for runner in started:
            runner.join(PATIENCE)
        codes = [runner.exitcode for runner in started]
        said = runners.log.read_text()[-2000:] if any(codes) else ""
        return codes, said, snapshot(bench.runs)

    return run


def wrong_with(bench, codes, said, found, expected, *, again=0):
    """Say what is wrong with a race; `again`: jobs that may have begun a second time."""
    begun = Counter(bench.events("begin"))
    wrong = [f"exit codes {codes}: {said}"] if any(codes) else []
    wrong += [f"job {job_id} ran twice at once" for job_id in bench.events("double")]
    if len(begun) != JOBS or sum(begun.values()) > JOBS + again:
        wrong.append(f"{sum(begun.values())} runs of {len(begun)} jobs")
    return wrong + differences(found, expected)


def nothing():
    pass


def skewed(seconds):
    """Return a prelude that sets a runner's own clock wrong."""

    def set_clock():
        right = time.time
        job_lock.time = type("Clock", (), {"time": lambda: right() + seconds})
        job_lock.time.monotonic = time.monotonic
        # A claim of another host is judged by times alone.
        job_lock.host_name = lambda: f"machine that is {seconds} s off"

    return set_clock


@pytest.mark.parametrize("count", [2, 3])
def test_of_runners_that_race_each_job_has_one(bench, race, tally, rounds, count):
    *_, expected = race([nothing])
    wrong = []
    for _ in range(usual := rounds(10)):
        wrong += wrong_with(bench, *race([nothing] * count), expected)
    tally.add(f"races of {count} runners over {JOBS} jobs", usual, len(wrong))
    assert wrong == []


@pytest.mark.parametrize("seconds", [3600, -3600, 60, -60])
def test_a_runner_whose_clock_is_off_takes_nothing_and_leaves_nothing(
    bench, race, tally, rounds, seconds
):
    *_, expected = race([nothing])
    wrong = []
    for _ in range(usual := rounds(3)):
        wrong += wrong_with(bench, *race([nothing, skewed(seconds)]), expected)
    tally.add(f"races with a clock that is {seconds:+d} s off", usual, len(wrong))
    assert wrong == []


def test_a_suspended_runner_is_taken_over_and_wakes_to_nothing(bench, race, tally, rounds, rng):
    """Suspended with its jobs, as a laptop or a batch system does; a minute without a heartbeat passes."""
    *_, expected = race([nothing])

    def impatient():
        job_lock.STALE, job_lock.HEARTBEAT = 1.0, 0.2

    def suspend(started):
        time.sleep(rng.uniform(0.1, 0.6))
        first, second = started
        jobs = [
            holder.worker
            for path in bench.runs.glob(f"*/{job_lock.LOCK}")
            if (holder := job_lock.read_holder(path)) and holder.runner == first.pid
        ]
        stopped = [first.pid, *filter(None, jobs)]
        for pid in stopped:
            signal_if_alive(pid, signal.SIGSTOP)
        second.join(PATIENCE)  # it takes over what the other held, and ends
        for pid in stopped:
            signal_if_alive(pid, signal.SIGCONT)

    wrong = []
    for _ in range(usual := rounds(10)):
        wrong += wrong_with(bench, *race([impatient] * 2, suspend), expected, again=1)
    tally.add("a runner suspended, taken over and woken", usual, len(wrong))
    assert wrong == []


def signal_if_alive(pid, signum):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
