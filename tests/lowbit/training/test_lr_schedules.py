"""The learning rate against the published schedules."""

import math

import pytest

from lowbit.training.lr_schedules import (
    check_milestones,
    decay_factor,
    learning_rate,
    warmup_cosine,
)

COSINE = {"lr": 0.5, "epochs": 10, "warmup_epochs": 0, "steps": 4}


def test_the_cosine_per_epoch_is_official_ssqls():
    for epoch in range(10):
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 10)) / 2
        rates = [warmup_cosine(epoch, step, **COSINE, unit="epoch") for step in range(4)]
        assert rates == pytest.approx([expected] * 4)


def test_the_cosine_per_step_falls_within_an_epoch_and_passes_through_the_epochs():
    rates = [warmup_cosine(e, s, **COSINE, unit="step") for e in range(10) for s in range(4)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 40
    assert rates[20] == warmup_cosine(5, 0, **COSINE, unit="epoch") == pytest.approx(0.25)


@pytest.mark.parametrize(("unit", "ticks"), [("epoch", 2), ("step", 8)])
def test_warm_up_is_linear_from_the_first_tick_and_ends_at_the_base_rate(unit, ticks):
    options = {**COSINE, "warmup_epochs": 2, "unit": unit}
    rates = [warmup_cosine(e, s, **options) for e in range(2) for s in range(4)]
    rates = rates if unit == "step" else rates[::4]
    assert rates == pytest.approx([0.5 * (i + 1) / ticks for i in range(ticks)])
    assert warmup_cosine(2, 0, **options) == pytest.approx(0.5)
    assert warmup_cosine(6, 0, **options) == pytest.approx(0.25)  # half of the eight left


@pytest.mark.parametrize("total", [7, 50, 1_500_000])
def test_decays_are_their_formulas_to_the_bit(total):
    times = {*range(min(total, 60)), total // 3, total // 2, total // 2 - 1, total - 1}
    milestones = (total // 3, total // 2)
    for t in times:
        cosine = learning_rate(t, total, lr=0.3, schedule="cosine")
        assert cosine == 0.3 * 0.5 * (1 + math.cos(math.pi * t / total))
        assert learning_rate(t, total, lr=0.3, schedule="linear") == 0.3 * (1 - t / total)
        falls = sum(milestone <= t for milestone in milestones)
        assert decay_factor("step", t, total, milestones=milestones, factor=0.2) == 0.2**falls


@pytest.mark.parametrize("milestones", [[0], [5, 3], [3, 3], [10]])
def test_milestones_rise_within_the_training(milestones):
    check_milestones([3, 9], 10)
    told = (
        rf"steps \[{str(milestones)[1:-1]}\] do not increase within 1..9; .*last of 10 epochs would"
    )
    with pytest.raises(ValueError, match=told):
        check_milestones(milestones, 10, name="steps")
