"""Annealed values at hand-worked steps."""

import pytest

from lowbit.quant.oscillation.annealing import Annealing


@pytest.mark.parametrize(
    ("schedule", "start", "expected"),
    [
        ("cosine", 0.0, [0.2, 0.17071, 0.1, 0.02929, 0.0]),
        ("linear", 0.0, [0.2, 0.15, 0.1, 0.05, 0.0]),
        ("cosine", 0.5, [0.2, 0.2, 0.2, 0.1, 0.0]),
        ("constant", 0.0, [0.0] * 5),
    ],
)
def test_values(schedule, start, expected):
    found = Annealing(0.2, 0.0, 80, schedule, start)
    assert [found.at(step) for step in (0, 20, 40, 60, 80)] == pytest.approx(expected, abs=1e-5)
    assert found.at(200) == expected[-1]


def test_it_starts_after_its_share():
    assert [Annealing(1, 0, 100, start=0.25).started(step) for step in (0, 24, 25)] == [0, 0, 1]
    assert Annealing(1, 0, 100, "constant", 0.25).started(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "cosin"}, "'cosin' is unknown; nothing was trained. Use one of cosine"),
        ({"start": 1.0}, "starts at 1.0 of the training; nothing was trained"),
        ({"total_steps": 0}, "has 0 steps; nothing was trained"),
    ],
)
def test_impossible_ones_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Annealing(**{"first": 0.0, "last": 0.1, "total_steps": 10, **fields})
