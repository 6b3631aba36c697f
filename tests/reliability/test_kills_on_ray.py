"""The same on a Ray cluster: its runner, the supervisors of jobs and the jobs are killed."""

import contextlib
import os
import subprocess
import sys

import pytest

from tests.benchmark.executors.test_local import alive
from tests.benchmark.executors.test_ray import bench, cluster  # noqa: F401  fixtures
from tests.reliability.blows import SUPERVISOR, Attack

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(3600)]

# A new runner needs half a minute: Ray starts new processes, which start a job server each.
KINDS = ("runner", "worker", "worker", SUPERVISOR, SUPERVISOR)


class Process(subprocess.Popen):
    """A process with the interface of multiprocessing's."""

    exitcode = property(subprocess.Popen.poll)

    def is_alive(self):
        return self.poll() is None

    def join(self, timeout=None):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


class Runners:
    """Starts `run --executor ray` in processes of their own."""

    def __init__(self, of, suite, address):
        self.runs, self.log, self._bench = of.runs, of.runs.with_name("runs.log"), of
        command = [sys.executable, str(of.folder / "driver.py"), str(of.stages), str(suite)]
        options = ["--runs-dir", str(of.runs), "--executor", "ray", "--address", address]
        self._words = command + options

    def start(self):
        with self.log.open("a") as log:
            return Process(
                self._words, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def jobs(self):
        return {pid for pid in self._bench.processes() if alive(pid)}


def test_a_sweep_of_fakes(bench, cluster, rng, tally, rounds):  # noqa: F811
    steps = {"steps": 10, "sleep": 0.1}
    suite = bench.suite(
        seeds=[0, 1, 2],
        checkpoints=[{"name": "made", "pretrain": "pretrain.yaml", "overrides": steps}],
        transfer=[{"recipe": "transfer.yaml", "overrides": {**steps, "lr": lr}} for lr in (1, 2)],
    )
    attack = Attack(Runners(bench, suite, cluster.address), rng, span=8.0)
    outcome = attack.make([rng.choice(KINDS) for _ in range(rounds(16))])
    for kind, hits in sorted(outcome.hits.items()):
        tally.add(f"SIGKILL, on Ray: {kind}", hits, len(outcome.wrong))
    assert bench.events("double") == []
    assert outcome.wrong == []
