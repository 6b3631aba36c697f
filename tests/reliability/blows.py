"""Signals at random moments against a sweep, which is started again until it has ended by itself."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from lowbit.benchmark.results.job_lock import LOCK, read_holder
from lowbit.benchmark.results.result_file import RESULT
from tests.reliability.runners import Runners
from tests.reliability.snapshots import differences, snapshot

PATIENCE = 300  # s in which something must happen, on a busy machine
SUPERVISOR = "supervisor of a job on a machine of a cluster"
STOP_RUNNER, STOP_WORKER = "SIGTERM to the runner", "SIGTERM to a worker"
STOPS = (STOP_RUNNER, STOP_WORKER)
_ENDED, _SOME_FAILED = 0, 2  # exit codes of a run
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass
class Outcome:
    """How an attack went: signals that hit a living process, by kind, and everything that was wrong."""

    hits: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Attack:
    """Signals to a sweep's processes.

    Args:
        runners: how to start it.
        rng: draws the moments and the victims.
        span: the longest wait for a moment, s.
        look: called when a sweep has ended; returns what is wrong with it.
    """

    def __init__(
        self,
        runners: Runners,
        rng: random.Random,
        *,
        span: float,
        look: Callable[[], list[str]] = list,
    ) -> None:
        self._runners, self._rng, self._span, self._look = runners, rng, span, look
        self._runs = runners.runs
        self._kinds = {
            "runner": self._at_any_time,
            "worker": self._at_any_time,
            "runner and workers": self._at_any_time,
            "while a file is written": self._while_writing,
            "while the board is built": self._while_building,
            SUPERVISOR: self._at_any_time,
            STOP_RUNNER: self._at_any_time,
            STOP_WORKER: self._at_any_time,
        }

    def make(self, kinds: Sequence[str]) -> Outcome:
        """Run the sweep undisturbed, then again until all signals are spent, comparing each end."""
        self._run_until_it_ends([], outcome := Outcome())
        expected = snapshot(self._runs)
        self._jobs = {path.parent.name for path in self._runs.glob(f"*/{RESULT}")}
        left = list(kinds)
        while left and not outcome.wrong:
            shutil.rmtree(self._runs)
            self._run_until_it_ends(left, outcome)
            outcome.wrong += differences(snapshot(self._runs), expected)
            outcome.wrong += self._look()
        return outcome

    def _run_until_it_ends(self, left: list[str], outcome: Outcome) -> None:
        """Start runners, and strike at them while signals are left, until one ends by itself."""
        code = None
        while code != _ENDED:
            runner = self._runners.start()
            while left and self._kinds[left[-1]](runner):
                kind = left[-1]
                if hit := self._strike(kind, runner):
                    left.pop()
                    outcome.hits[kind] = outcome.hits.get(kind, 0) + hit
            code = self._join(runner)
            if code not in (_ENDED, _SOME_FAILED, *_KILLED):
                outcome.wrong.append(f"a runner ended with exit code {code}: {self._said()}")
                return
        if strays := self._strays():
            outcome.wrong.append(f"{len(strays)} processes of jobs outlived the sweep")

    def _join(self, runner: BaseProcess) -> int | None:
        runner.join(PATIENCE)
        if runner.exitcode is None:
            runner.kill()
            runner.join()
            return None
        return runner.exitcode

    def _said(self) -> str:
        return " | ".join(self._runners.log.read_text().splitlines()[-5:])

    def _strays(self) -> set[int]:
        """Return the processes of jobs that have not ended some seconds after their runner."""
        end = time.monotonic() + 20
        while (left := self._runners.jobs()) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def _at_any_time(self, runner: BaseProcess) -> bool:
        """Wait for a random time; return whether the runner still lives."""
        runner.join(self._rng.uniform(0, self._span))
        return runner.is_alive()

    def _while_writing(self, runner: BaseProcess) -> bool:
        """Wait until a temporary file is made, after a random time."""
        self._at_any_time(runner)
        before = set(self._temporary())
        return self._wait(runner, lambda: not before.issuperset(self._temporary()))

    def _while_building(self, runner: BaseProcess) -> bool:
        """Wait until all jobs have results, and then for a part of the time that a board takes."""

        def ended() -> bool:
            return {path.parent.name for path in self._runs.glob(f"*/{RESULT}")} >= self._jobs

        if not self._wait(runner, ended):
            return False
        runner.join(self._rng.uniform(0, 0.3))
        return runner.is_alive()

    def _wait(self, runner: BaseProcess, condition: Callable[[], bool]) -> bool:
        while runner.is_alive():
            if condition():
                return True
            runner.join(0.001)
        return False

    def _temporary(self) -> Iterator[Path]:
        for pattern in (".*.tmp", "*/.*.tmp"):
            yield from self._runs.glob(pattern)

    def _strike(self, kind: str, runner: BaseProcess) -> int:
        """Send the signals of a blow, and return how many living processes were hit."""
        found = [read_holder(path) for path in self._runs.glob(f"*/{LOCK}")]
        held = [holder for holder in found if holder is not None and holder.states]
        workers = [holder.worker for holder in held if holder.worker]
        if kind in ("worker", STOP_WORKER):
            victims = self._rng.sample(workers, min(1, len(workers)))
        elif kind == SUPERVISOR:
            victims = [self._rng.choice(held).runner] if held else []
        elif kind == "runner and workers":
            victims = [runner.pid, *workers]
        elif kind == "while a file is written" and workers and self._rng.random() < 0.5:
            victims = [self._rng.choice(workers)]
        else:
            victims = [runner.pid]
        hit, jobs = 0, self._runners.jobs()
        for pid in victims:
            if pid in jobs or pid not in workers:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGTERM if kind in STOPS else signal.SIGKILL)
                    hit += 1
        if runner.pid in victims:
            runner.join(PATIENCE)
        return hit
