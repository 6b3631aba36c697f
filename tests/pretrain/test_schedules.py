"""The learning rate against the published schedules."""

import math

import pytest

from lowbit.pretrain.schedules import learning_rate

COSINE = {"lr": 0.5, "epochs": 10, "warmup_epochs": 0, "steps": 4}


def test_the_cosine_per_epoch_is_official_ssqls():
    for epoch in range(10):
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 10)) / 2
        rates = [learning_rate(epoch, step, **COSINE, unit="epoch") for step in range(4)]
        assert rates == pytest.approx([expected] * 4)


def test_the_cosine_per_step_falls_within_an_epoch_and_passes_through_the_epochs():
    rates = [learning_rate(e, s, **COSINE, unit="step") for e in range(10) for s in range(4)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 40
    assert rates[20] == learning_rate(5, 0, **COSINE, unit="epoch") == pytest.approx(0.25)


@pytest.mark.parametrize(("unit", "ticks"), [("epoch", 2), ("step", 8)])
def test_warm_up_is_linear_from_the_first_tick_and_ends_at_the_base_rate(unit, ticks):
    options = {**COSINE, "warmup_epochs": 2, "unit": unit}
    rates = [learning_rate(e, s, **options) for e in range(2) for s in range(4)]
    rates = rates if unit == "step" else rates[::4]
    assert rates == pytest.approx([0.5 * (i + 1) / ticks for i in range(ticks)])
    assert learning_rate(2, 0, **options) == pytest.approx(0.5)
    assert learning_rate(6, 0, **options) == pytest.approx(0.25)  # half of the eight left
