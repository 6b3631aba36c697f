"""Claims: one holder at a time, and no claim outlives its holder."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lowbit.benchmark.results.job_lock import (
    LOCK,
    STALE,
    Claim,
    Holder,
    host_name,
    read_holder,
    warn_of_skew,
)


def gone_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave_lock(folder, *, age=0.0, **changes):
    """Leave a lock as a runner that is gone would; return who held it."""
    holder = replace(Holder(host_name(), gone_pid(), 0, "old"), **changes)
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(asdict(holder)))
    then = time.time() - age
    os.utime(folder / LOCK, (then, then))
    return holder


def test_a_claim_is_exclusive_until_it_is_released(tmp_path):
    first = Claim.take(tmp_path / "job")
    assert first is not None
    assert Claim.take(tmp_path / "job") is None
    first.release()
    assert not (tmp_path / "job" / LOCK).exists()
    assert Claim.take(tmp_path / "job") is not None


def test_the_lock_says_who_holds_it(tmp_path):
    claim = Claim.take(tmp_path)
    claim.name_worker(4321)
    holder = read_holder(tmp_path / LOCK)
    assert holder == Holder(host_name(), os.getpid(), 4321, claim.token)
    assert claim.held


def test_a_dead_holder_of_this_host_is_replaced_at_once(tmp_path):
    leave_lock(tmp_path)
    claim = Claim.take(tmp_path)
    assert read_holder(tmp_path / LOCK).token == claim.token


def test_a_claim_lives_as_long_as_its_worker(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        leave_lock(tmp_path, worker=worker.pid)
        assert Claim.take(tmp_path) is None
        worker.kill()
        while ") Z " not in Path(f"/proc/{worker.pid}/stat").read_text():
            time.sleep(0.01)
        assert Claim.take(tmp_path) is not None  # though nobody has waited for it yet


@pytest.mark.parametrize(("age", "taken"), [(0.5 * STALE, False), (1.5 * STALE, True)])
def test_a_holder_elsewhere_is_replaced_when_its_heart_stops(tmp_path, age, taken):
    leave_lock(tmp_path, host="another", age=age)
    assert (Claim.take(tmp_path) is not None) == taken


@pytest.mark.parametrize("skew", [-3600.0, -61.0, 0.0, 61.0, 3600.0])
def test_a_clock_that_is_off_neither_steals_nor_leaves_a_claim(tmp_path, monkeypatch, skew):
    leave_lock(tmp_path / "alive", host="another", age=0.5 * STALE)
    leave_lock(tmp_path / "dead", host="another", age=1.5 * STALE)
    now = time.time
    monkeypatch.setattr("lowbit.benchmark.results.job_lock.time.time", lambda: now() + skew)
    assert Claim.take(tmp_path / "alive") is None
    claim = Claim.take(tmp_path / "dead")
    assert claim is not None
    claim._beat -= STALE  # it is time for a heartbeat
    assert claim.beat()
    monkeypatch.undo()
    assert abs(now() - (tmp_path / "dead" / LOCK).stat().st_mtime) < STALE / 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".takeover", "alive", "dead"]


@pytest.mark.parametrize(
    ("skew", "said"), [(3600, "3600 s ahead of"), (-61, "61 s behind"), (2, "")]
)
def test_a_clock_that_is_off_is_warned_of(tmp_path, monkeypatch, caplog, skew, said):
    now = time.time
    monkeypatch.setattr("lowbit.benchmark.results.job_lock.time.time", lambda: now() + skew)
    warn_of_skew(tmp_path)
    assert said in caplog.text and bool(caplog.text) == bool(said)


def test_a_running_process_of_this_host_keeps_its_claim_without_a_heartbeat(tmp_path):
    leave_lock(tmp_path, runner=os.getpid(), age=100 * STALE)
    assert Claim.take(tmp_path) is None


@pytest.mark.parametrize(("age", "taken"), [(0.5 * STALE, False), (1.5 * STALE, True)])
def test_a_suspended_process_of_this_host_keeps_its_claim_for_a_minute(tmp_path, age, taken):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as runner:
        os.kill(runner.pid, signal.SIGSTOP)
        while ") T " not in Path(f"/proc/{runner.pid}/stat").read_text():
            time.sleep(0.01)
        leave_lock(tmp_path, runner=runner.pid, age=age)
        assert (Claim.take(tmp_path) is not None) == taken
        runner.kill()


def test_a_later_process_with_the_same_id_keeps_no_claim(tmp_path):
    """As after a reboot."""
    claim = Claim.take(tmp_path)
    runner, worker = read_holder(tmp_path / LOCK).started
    assert runner > 0 and worker == 0
    claim.name_worker(os.getpid())
    assert read_holder(tmp_path / LOCK).started == [runner, runner]
    assert Claim.take(tmp_path) is None
    leave_lock(tmp_path, runner=os.getpid(), started=(runner - 1, 0))
    assert Claim.take(tmp_path) is not None


@pytest.mark.parametrize(("age", "taken"), [(0.0, False), (1.5 * STALE, True)])
def test_a_lock_that_is_being_written_is_not_dead_before_its_time(tmp_path, age, taken):
    (tmp_path / LOCK).touch()
    then = time.time() - age
    os.utime(tmp_path / LOCK, (then, then))
    assert (Claim.take(tmp_path) is not None) == taken


def test_a_heartbeat_keeps_a_claim_alive(tmp_path, monkeypatch):
    claim = Claim.take(tmp_path)
    then = time.time() - 2 * STALE
    os.utime(tmp_path / LOCK, (then, then))
    claim.beat()  # too soon after the last
    assert (tmp_path / LOCK).stat().st_mtime == pytest.approx(then, abs=1)
    later = time.monotonic() + STALE
    monkeypatch.setattr("lowbit.benchmark.results.job_lock.time.monotonic", lambda: later)
    claim.beat()
    assert time.time() - (tmp_path / LOCK).stat().st_mtime < STALE / 2


def test_a_claim_that_was_taken_over_is_not_released(tmp_path):
    claim = Claim.take(tmp_path)
    leave_lock(tmp_path, runner=os.getpid(), token="newer")
    assert not claim.held
    claim.release()
    assert read_holder(tmp_path / LOCK).token == "newer"


def test_a_claim_that_was_handed_over_beats_and_ends_where_it_is(tmp_path):
    first = Claim.take(tmp_path)
    leave_lock(tmp_path, host="another", token=first.token)  # as `inherit` would, there
    assert not first.held
    first.release()
    assert read_holder(tmp_path / LOCK).host == "another"
    second = Claim.inherit(tmp_path, first.token)
    assert second.held
    assert read_holder(tmp_path / LOCK) == Holder(host_name(), os.getpid(), 0, first.token)
    second.release()
    assert Claim.inherit(tmp_path, first.token) is None


def test_a_claim_that_was_taken_over_is_not_inherited(tmp_path):
    leave_lock(tmp_path, token="newer")
    assert Claim.inherit(tmp_path, "older") is None
    assert read_holder(tmp_path / LOCK).token == "newer"


def _race(folder, together, wins):
    together.wait()
    claim = Claim.take(folder)
    if claim is not None:
        wins.put(claim.token)
    together.wait()  # a winner lives until all have tried


@pytest.mark.parametrize("dead_first", [False, True])
def test_of_many_that_race_one_wins(tmp_path, dead_first):
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        if dead_first:
            leave_lock(folder)
        together, wins = context.Barrier(6), context.SimpleQueue()
        racers = [context.Process(target=_race, args=(folder, together, wins)) for _ in range(6)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        won = []
        while not wins.empty():
            won.append(wins.get())
        assert len(won) == 1
        assert read_holder(folder / LOCK).token == won[0]
