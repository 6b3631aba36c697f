"""Seeds needed: against the noncentral t-distribution of scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from lowbit.benchmark.claims.decide import Estimate, Goal, decide, estimate
from lowbit.benchmark.claims.seeds_needed import MOST, POWER, power_of, seeds_needed

MORE, WITHIN = Goal("more", 0.5), Goal("within", 0.5)


def _reference_power(away, sd, n, level):
    """Of a two-sided one-sample t-test on the side of the effect, as textbooks have it."""
    bound = stats.t.ppf(1 - level / 2, n - 1)
    return stats.nct.sf(bound, n - 1, away * np.sqrt(n) / sd)


@pytest.mark.parametrize(
    ("mean", "goal", "away"),
    [
        (1.2, MORE, 1.2),  # to support it
        (-0.4, MORE, 0.9),  # to rule out what would matter
        (0.2, MORE, 0.3),
        (0.1, WITHIN, 0.4),
        (-1.5, WITHIN, 1.0),
    ],
)
@pytest.mark.parametrize("level", [0.05, 0.05 / 12])
def test_the_fewest_that_reach_the_power(mean, goal, away, level):
    found = Estimate(mean, n=3, sd=0.8)
    needed = seeds_needed(found, goal, level=level)
    assert _reference_power(away, 0.8, needed, level) >= POWER
    assert needed == 3 or _reference_power(away, 0.8, needed - 1, level) < POWER
    assert power_of(found, goal, needed, level=level) == pytest.approx(
        _reference_power(away, 0.8, needed, level), abs=1e-6
    )


@pytest.mark.parametrize(("mean", "goal"), [(1.2, MORE), (-0.4, MORE), (-1.5, WITHIN)])
def test_so_many_seeds_decide_as_often_as_promised(mean, goal):
    needed = seeds_needed(Estimate(mean, n=3, sd=0.8), goal, level=0.05)
    draws = np.random.default_rng(0).normal(mean, 0.8, (4000, needed))
    decided = [decide([(estimate(sample), goal)])[0].verdict != "undecided" for sample in draws]
    assert np.mean(decided) == pytest.approx(
        power_of(Estimate(mean, 3, 0.8), goal, needed, level=0.05), abs=0.02
    )
    assert np.mean(decided) > POWER - 0.02


def test_no_number_that_anybody_would_run():
    assert seeds_needed(Estimate(0.25, n=3, sd=40.0), MORE, level=0.05) is None
    assert seeds_needed(Estimate(0.5, n=3, sd=0.4), WITHIN, level=0.05) is None  # at a bound
    assert seeds_needed(Estimate(1.0, n=3, sd=0.0), MORE, level=0.05) is None  # no spread
    assert power_of(Estimate(0.25, n=3, sd=40.0), MORE, MOST, level=0.05) < POWER


def test_fewer_than_there_are_is_never_the_answer():
    assert seeds_needed(Estimate(9.0, n=6, sd=0.1), MORE, level=0.05) == 6
