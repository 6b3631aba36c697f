"""The board of a running sweep: now and then, by one process at a time, never in the way."""

import os
import subprocess
import sys
import time

import pytest

from lowbit.benchmark.monitoring import board_refresh
from lowbit.benchmark.monitoring.board_refresh import BoardRefresher


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns; only the refresher's."""
    now = [1000.0]
    monkeypatch.setattr("lowbit.benchmark.monitoring.board_refresh.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Stand-in for the tool, which notes that it was started and how politely."""
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import os, sys, time\n"
        "open(sys.argv[2] + '/started', 'a').write(f'{os.nice(0)}\\n')\n"
        "time.sleep(float(os.environ.get('BUILD_S', 0)))\n"
    )
    monkeypatch.setattr(board_refresh, "_COMMAND", (str(tool),))
    log = tmp_path / "started"
    return lambda: log.read_text().split() if log.exists() else []


def wait(refresher):
    assert refresher._building is not None
    refresher._building.wait(60)


def test_it_builds_after_a_pause_and_again_after_a_longer_one(tmp_path, clock, started):
    refresher = BoardRefresher(tmp_path)
    refresher()
    assert refresher._building is None
    clock[0] += board_refresh._PAUSE
    refresher()
    wait(refresher)
    assert started() == [str(min(19, os.nice(0) + 19))]
    clock[0] += board_refresh._PAUSE / 2
    refresher()
    assert refresher._building is None
    clock[0] += (
        30 * board_refresh._PAUSE
    )  # that build took half a pause: 2 % of the time is 25 pauses
    refresher()
    wait(refresher)
    assert len(started()) == 2


def test_a_page_another_runner_has_just_built_is_left(tmp_path, clock, started):
    page = tmp_path / "leaderboard" / "index.html"
    page.parent.mkdir()
    page.touch()
    refresher = BoardRefresher(tmp_path)
    clock[0] += board_refresh._PAUSE
    refresher()
    assert refresher._building is None
    old = time.time() - 2 * board_refresh._PAUSE
    os.utime(page, (old, old))
    clock[0] += board_refresh._PAUSE
    refresher()
    wait(refresher)
    assert len(started()) == 1


def test_one_under_way_is_not_doubled_and_ends_with_the_run(tmp_path, clock, started, monkeypatch):
    monkeypatch.setenv("BUILD_S", "300")
    refresher = BoardRefresher(tmp_path)
    clock[0] += board_refresh._PAUSE
    refresher()
    first = refresher._building
    clock[0] += 100 * board_refresh._PAUSE
    refresher()
    assert refresher._building is first
    refresher.end()
    assert first.poll() is not None
    refresher.end()  # nothing is left to end


def test_the_tool_is_there():
    done = subprocess.run(
        [sys.executable, *board_refresh._COMMAND, "build", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
