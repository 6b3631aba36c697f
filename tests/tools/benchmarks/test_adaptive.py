"""What is measured of adaptive bit-widths: whole steps, and the most memory that is alive at once."""

import pytest
import torch

from lowbit.tools.benchmarks import adaptive as bench


def test_peak_is_of_what_is_alive_at_once():
    mebi = 2**20

    def run():
        for _ in range(3):
            one = torch.empty(2 * mebi, dtype=torch.uint8)
            two = torch.empty(3 * mebi, dtype=torch.uint8)
            del one, two

    run.kept = lambda: 7 * mebi
    assert bench.peak_bytes(run, "cpu") == pytest.approx(12 * mebi, rel=0.01)


def test_steps_train_and_count_what_they_keep():
    for make in (bench.single_step, bench.joint_step):
        step = make("resnet10_slim", 4, "cpu")
        parameters = step.kept()
        step()
        assert step.kept() > 1.9 * parameters  # momentum
