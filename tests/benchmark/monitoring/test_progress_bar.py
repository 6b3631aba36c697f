"""What a running sweep shows: the same facts on a terminal and in a log."""

import io
import os
import pty
import re
import subprocess
import sys
import termios

import pytest
from tqdm import tqdm

from lowbit.benchmark.executors import local
from lowbit.benchmark.monitoring import progress_bar as module
from lowbit.benchmark.scheduling.schedule import Schedule


class Learned:
    """Stands for the estimator: every job that has not ended takes 90 s; it counts what it learns."""

    def __init__(self):
        self.results = []

    def learn(self, result):
        self.results.append(result)

    def estimate_all(self, jobs):
        job_ids = [getattr(job, "id", job) for job in jobs]
        return {job_id: type("Estimate", (), {"seconds": 90.0}) for job_id in job_ids}


@pytest.fixture
def planned(bench):
    transfer = [
        {"recipe": "transfer.yaml"},
        {"recipe": "transfer.yaml", "overrides": {"behave": "raise"}},
    ]
    return bench.plan(seeds=[0, 1], transfer=transfer)


def test_the_bar_says_how_many_ended_run_and_failed_and_what_is_left(bench, planned):
    schedule, learned, drawn = Schedule(planned, bench.runs), Learned(), io.StringIO()
    form = "{bar:20} {n}/{total} jobs{postfix}"
    with tqdm(total=len(planned.jobs), file=drawn, bar_format=form, mininterval=0, ncols=90) as bar:
        shown = module.Progress(schedule, learned, workers=2, bar=bar)
        local.run(schedule, workers=2, report=shown.report)
    assert bar.n == len(planned.jobs) == len(learned.results) == 5
    assert "5/5 jobs" in drawn.getvalue() and "2 failed" in drawn.getvalue()
    assert re.search(r"1/5 jobs, 0 running, about (3 min|3\.0 min|180 s) left", drawn.getvalue())


def test_a_log_has_a_line_a_job_and_no_bar(bench, planned, capsys, caplog):
    schedule = Schedule(planned, bench.runs)
    caplog.set_level("INFO", "lowbit.benchmark.monitoring.progress_bar")
    with module.progress(schedule, Learned(), workers=1) as shown:
        local.run(schedule, workers=1, report=shown.report)
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "lowbit.benchmark.monitoring.progress_bar"
    ]
    assert [re.match(r"\[(\d)/5\]", line)[1] for line in lines] == list("12345")
    assert sum("FAILED" in line for line in lines) == 2
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_bar_stays_below_the_last_results(bench, planned):
    bench.suite(seeds=[0], transfer=[{"recipe": "transfer.yaml"}])
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    process = subprocess.Popen(
        [
            sys.executable,
            str(bench.folder / "driver.py"),
            str(bench.stages),
            str(bench.folder / "suite.yaml"),
            "--runs-dir",
            str(bench.runs),
            "--workers",
            "1",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"},
        stdout=child,
        stderr=child,
    )
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(parent, 4096)
        except OSError:  # the terminal has closed
            break
    os.close(parent)
    assert process.wait() == 0, shown.decode()
    text = shown.decode()
    assert "2/2 jobs" in text and "█" in text, text
    assert text.index("[1/2] completed") < text.index("[2/2] completed") < text.rindex("2/2 jobs")
    assert "Leaderboard:" in text
