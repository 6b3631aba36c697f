"""Killed at any moment and started again, a sweep ends as one that nobody touched."""

import pytest

from lowbit.benchmark.recipes.stages import STAGES
from tests.reliability.blows import Attack
from tests.reliability.runners import Runners

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        ("runner", 40),
        ("worker", 40),
        ("runner and workers", 20),
        ("while a file is written", 40),
        ("while the board is built", 20),
    ],
)
def test_a_sweep_of_fakes(bench, rng, tally, rounds, kind, usual):
    steps = {"steps": 4, "sleep": 0.02}
    suite = bench.suite(
        seeds=[0, 1],
        checkpoints=[{"name": "made", "pretrain": "pretrain.yaml", "overrides": steps}],
        transfer=[{"recipe": "transfer.yaml", "overrides": {**steps, "lr": lr}} for lr in (1, 2)],
        detection=[
            {"id": "fp", "recipe": "detection.yaml", "overrides": steps, "seeds": [0]},
            {"recipe": "detection.yaml", "detector": "fp", "overrides": {**steps, "lr": 2}},
        ],
    )
    runners = Runners(suite, bench.runs, "--workers", "2", stages=STAGES)

    def look():
        return [f"job {job_id} ran twice at once" for job_id in bench.events("double")]

    attack = Attack(runners, rng, span=0.6, look=look)
    outcome = attack.make([kind] * rounds(usual))
    tally.add(f"SIGKILL, trivial jobs: {kind}", sum(outcome.hits.values()), len(outcome.wrong))
    assert outcome.wrong == []
