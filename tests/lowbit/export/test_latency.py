"""Latency against a clock that the graphs move themselves."""

import time

import numpy as np
import pytest

from lowbit.export.latency import time_in_turns


class Sleeper:
    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def run(self, images):
        self.calls += 1
        self.clock.now += self.seconds * len(images)
        return [images]


class Clock:
    now = 0.0


def test_latency_is_a_median_of_ratios_in_turns(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    fast, slow = Sleeper(clock, 1e-3), Sleeper(clock, 4e-3)
    found = time_in_turns(fast, slow, np.zeros((2, 3, 4, 4), np.float32), rounds=7)
    assert found.ratio == pytest.approx(0.25) and found.low == pytest.approx(0.25)
    assert found.seconds == pytest.approx(2e-3) and found.reference == pytest.approx(8e-3)
    assert fast.calls == slow.calls - 1  # each as often, and one call to see how long a round is
