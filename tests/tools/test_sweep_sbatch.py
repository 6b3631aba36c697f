"""The Slurm script, run as a node would run it: with Slurm's variables, signals, and a fake scontrol."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmark.conftest import bench as bench
from tests.benchmark.executors.test_local import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]


def command(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def start_task(folder: Path, python: Path, place: int, *arguments: object) -> subprocess.Popen:
    """Start one of two tasks of an array that begins at 4; what is in `folder` comes first on PATH."""
    slurm = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(4 + place),
        "SLURM_ARRAY_TASK_MIN": "4",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", ROOT / "tools" / "sweep.sbatch", *map(str, arguments)],
        env={**os.environ, **slurm, "PATH": path, "PYTHON": str(python), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_the_tasks_of_an_array_share_the_jobs_out(bench):
    planned = bench.plan(seeds=[0, 1, 2, 3])
    driver = f'exec {sys.executable} {bench.folder / "driver.py"} {bench.stages} "$@"'
    python = command(bench.folder / "python", "shift", driver)
    arguments = (bench.folder / "suite.yaml", "--runs-dir", bench.runs, "--workers", "1")
    tasks = [start_task(bench.folder, python, place, *arguments) for place in (0, 1)]
    outputs = [task.communicate(timeout=2 * PATIENCE)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert Counter(bench.events("end")) == dict.fromkeys(planned.jobs, 1)
    assert ["fakes: 3 jobs" in output for output in outputs] == [
        True,
        True,
    ]  # two, and a shared one


@pytest.mark.parametrize(
    ("signum", "expected"), [(signal.SIGUSR1, "requeue 77_5\n"), (signal.SIGTERM, "")]
)
def test_a_task_near_its_limit_saves_and_comes_back(tmp_path, signum, expected):
    said, asked = tmp_path / "said.txt", tmp_path / "asked.txt"
    asked.touch()
    command(tmp_path / "scontrol", f'echo "$@" >> {asked}')
    # What the runner does: told to stop, it takes a moment to save, and ends with 143.
    python = command(
        tmp_path / "python",
        f"trap 'sleep 0.3; echo saved >> {said}; exit 143' TERM",
        f'echo "$@" > {said}',
        "while :; do sleep 0.05; done",
    )
    task = start_task(tmp_path, python, 1, "suite.yaml", "--workers", "2")
    wait_for(lambda: said.exists() and said.read_text(), what="the runner to begin")
    time.sleep(0.2)  # the script sets its traps after it has started the runner
    task.send_signal(signum)
    task.communicate(timeout=PATIENCE)
    assert task.returncode == 143
    assert said.read_text() == "tools/run_all.py suite.yaml --workers 2 --shard 1/2\nsaved\n"
    assert asked.read_text() == expected


def test_a_task_that_ends_by_itself_says_how(tmp_path):
    python = command(tmp_path / "python", "exit 2")
    task = start_task(tmp_path, python, 0)
    task.communicate(timeout=PATIENCE)
    assert task.returncode == 2
