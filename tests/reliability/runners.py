"""Runners of suites that import nothing: forked from the test's process, with its job server."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from lowbit.benchmark.cli import run
from lowbit.benchmark.executors import job_process


class Runners:
    """Starts `lowbit-bench run` on one suite, as often as asked.

    Args:
        suite, runs: the suite's file, and the folder of its jobs.
        words: more words of the command line.
        stages: what the jobs' server imports; `start_server` adds what it always imports.
    """

    def __init__(self, suite: Path, runs: Path, *words: str, stages: tuple[str, ...] = ()) -> None:
        # Imported here once, and not by each runner when it builds its board.
        import lowbit.benchmark.leaderboard.build
        import lowbit.benchmark.monitoring.progress_bar  # noqa: F401

        self.runs = runs
        self.log = runs.with_name(f"{runs.name}.log")
        self._words = [str(suite), "--runs-dir", str(runs), *words]
        job_process.start_server(1, stages)
        self.server = forkserver._forkserver._forkserver_pid

    def start(self, *words: str, prelude=lambda: None) -> BaseProcess:
        """Start a runner; `prelude` is called in its process first."""
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._run, args=(words, prelude))
        process.start()
        return process

    def jobs(self) -> set[int]:
        """Return the processes of jobs, and of what they started, that live."""
        found, parents = set(), {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has just ended
                continue
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
        ends = {0, 1, self.server}
        for pid in parents:
            above = parents[pid]
            while above not in ends:
                above = parents.get(above, 0)
            if above == self.server:
                found.add(pid)
        return found

    def _run(self, words: tuple[str, ...], prelude) -> None:
        descriptor = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        for standard, stream in ((1, "stdout"), (2, "stderr")):
            os.dup2(descriptor, standard)
            setattr(sys, stream, os.fdopen(standard, "w", buffering=1, closefd=False))
        # The server is the parent's child, which this process could not wait for; it is alive.
        forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
        prelude()
        os._exit(run.main([*self._words, *words]))
