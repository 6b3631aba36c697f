"""Ratios of a benchmark are taken within rounds, and a missed target is visible."""

import subprocess
import sys
from pathlib import Path

from lowbit.pretrain.recipe import Recipe  # before tools/, whose pretrain.py has its name

ROOT = Path(__file__).parents[2]


def test_ratios_are_medians_over_rounds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from lowbit.tools.benchmarks.timing import ratio_rows

    clock = iter(range(10**6))
    ticks = {"slow": 6, "base": 2}

    def spend(name):
        return lambda: [next(clock) for _ in range(ticks[name])]

    monkeypatch.setattr("timing.time.process_time", lambda: next(clock))
    (row,) = ratio_rows(
        {name: spend(name) for name in ticks}, "base", 3, {"slow": 2.0}, note="fake clock"
    )
    assert row.case == "slow (fake clock)" and row.against == "base"
    assert (row.ours_s, row.against_s, row.target) == (7, 3, 2.0)  # one tick between two readings
    assert row.ratio == 7 / 3


def test_the_hand_written_loop_takes_the_trainers_steps(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import torch

    from lowbit.tools.benchmarks.pretrain import hand_written, steps_of

    settings = {"architecture": "resnet10_slim", "dataset": "digits", "device": "cpu"}
    recipe = Recipe(**settings, image_size=16, batch_size=16, epochs=9, dim=32, hidden_dim=8)
    torch.manual_seed(0)
    for take in (hand_written(recipe), steps_of(recipe)):
        take()
        take()


def test_help_ends_in_examples():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/bench.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "python tools/bench.py quant" in done.stdout.splitlines()[-1]
