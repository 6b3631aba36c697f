"""Ratios of a benchmark are taken within rounds, and a missed target is visible."""

from lowbit.tools.benchmarks.timing import ratio_rows


def test_ratios_are_medians_over_rounds(monkeypatch):
    clock = iter(range(10**6))
    ticks = {"slow": 6, "base": 2}

    def spend(name):
        return lambda: [next(clock) for _ in range(ticks[name])]

    monkeypatch.setattr("lowbit.tools.benchmarks.timing.time.process_time", lambda: next(clock))
    (row,) = ratio_rows(
        {name: spend(name) for name in ticks}, "base", 3, {"slow": 2.0}, note="fake clock"
    )
    assert row.case == "slow (fake clock)" and row.against == "base"
    assert (row.ours_s, row.against_s, row.target) == (7, 3, 2.0)  # one tick between two readings
    assert row.ratio == 7 / 3
