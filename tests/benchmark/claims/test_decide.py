"""Verdicts follow from the numbers: against scipy's tests, a stepwise Holm, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from lowbit.benchmark.claims.decide import Decision, Estimate, Goal, decide, estimate

MORE, WITHIN = Goal("more", 0.5), Goal("within", 0.5)


def only(estimate_: Estimate, goal: Goal) -> Decision:
    (found,) = decide([(estimate_, goal)])
    return found


def _reference_verdict(differences, goal, level):
    """The verdict by scipy's t-tests, each bound tested at half the level on its side."""
    m, half = goal.matters, level / 2

    def is_above(bound):
        return stats.ttest_1samp(differences, bound, alternative="greater").pvalue < half

    def is_below(bound):
        return stats.ttest_1samp(differences, bound, alternative="less").pvalue < half

    if goal.kind == "more":
        supported, contradicted = is_above(0), is_below(m)
    else:
        supported, contradicted = is_above(-m) and is_below(m), is_above(m) or is_below(-m)
    return "contradicted" if contradicted else "supported" if supported else "undecided"


@pytest.mark.parametrize(
    ("differences", "goal", "verdict"),
    [
        ([2.0, 2.5, 3.0], MORE, "supported"),
        ([-2.0, -2.5, -3.0], MORE, "contradicted"),  # the other side has more
        ([0.1, -0.1, 0.05, 0.0], MORE, "contradicted"),  # nothing that would matter
        ([0.19, 0.2, 0.21], MORE, "contradicted"),  # more, by less than would matter
        ([2.0, -1.0, 3.0], MORE, "undecided"),
        ([0.1, -0.1, 0.05, 0.0], WITHIN, "supported"),
        ([2.0, 2.5, 3.0], WITHIN, "contradicted"),
        ([-2.0, -2.5, -3.0], WITHIN, "contradicted"),
        ([0.4, 0.2, 0.7], WITHIN, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_differences(differences, goal, verdict):
    found = only(estimate(differences), goal)
    assert found.verdict == verdict == _reference_verdict(differences, goal, 0.05)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    )


def test_verdicts_are_those_of_scipy_on_many_samples():
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        n, spread = int(generator.integers(2, 8)), generator.uniform(0.05, 2)
        differences = generator.normal(generator.uniform(-2, 2), spread, n)
        for goal in (MORE, WITHIN):
            found = only(estimate(differences), goal)
            assert found.verdict == _reference_verdict(differences, goal, 0.05)
            seen.add((goal.kind, found.verdict))
    assert len(seen) == 6


def test_p_is_the_level_at_which_the_interval_begins_to_decide():
    for differences in ([1.0, 2.5, 3.0], [0.1, -0.2, 0.05], [-1.0, -2.5, 0.3]):
        for goal in (MORE, WITHIN):
            found = estimate(differences)
            p = found.p(goal)
            assert goal.verdict(*found.interval(p * 1.001)) != "undecided" or p == 1
            assert goal.verdict(*found.interval(p * 0.999)) == "undecided"


def test_two_sided_p_is_that_of_the_paired_t_test():
    a, b = [93.0, 94.0, 95.5], [92.0, 92.5, 93.5]
    differences = np.subtract(a, b)
    assert estimate(differences).p(Goal("more", 1e-9)) == pytest.approx(
        stats.ttest_rel(a, b).pvalue
    )


def _reference_holm(p, alpha):
    """Which of the hypotheses Holm's procedure rejects, step by step."""
    rejected = set()
    for step, index in enumerate(np.argsort(p)):
        if p[index] > alpha / (len(p) - step):
            break
        rejected.add(int(index))
    return rejected


def test_claims_are_corrected_for_how_many_were_tried():
    generator = np.random.default_rng(1)
    for _ in range(50):
        samples = [
            estimate(generator.normal(mean, 0.4, 4)) for mean in generator.choice([0, 1, 3], 12)
        ]
        p = [sample.p(MORE) for sample in samples]
        decided = {
            index
            for index, found in enumerate(decide([(sample, MORE) for sample in samples]))
            if found.verdict != "undecided"
        }
        assert decided == _reference_holm(p, 0.05)


def test_the_interval_shown_is_the_one_that_decided():
    sure = Estimate(3.0, n=4, sd=0.1)
    found = decide([(sure, MORE), (Estimate(0.9, n=4, sd=0.4), MORE), (sure, MORE)])
    assert [each.level for each in found] == pytest.approx([0.05 / 3, 0.05, 0.05 / 2])
    assert found[1].verdict == "supported"  # alone among those left, as Holm has it
    for each in found:
        assert each.verdict == MORE.verdict(each.low, each.high)
    failing = decide([(Estimate(0.9, n=4, sd=1.0), MORE)] * 3)
    assert [each.level for each in failing] == pytest.approx([0.05 / 3] * 3)
    assert {each.verdict for each in failing} == {"undecided"}


@pytest.mark.parametrize(("truth", "wrong"), [(0.0, "supported"), (0.5, "contradicted")])
def test_the_chance_of_any_wrong_verdict_is_at_most_five_percent(truth, wrong):
    """Of ten claims at the bound of the wrong verdict, its worst case."""
    generator = np.random.default_rng(2)
    tables = 2000
    count = 0
    for sample in generator.normal(truth, 0.7, (tables, 10, 3)):
        found = decide([(estimate(each), MORE) for each in sample])
        count += any(each.verdict == wrong for each in found)
    assert count / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)


def test_differences_that_do_not_vary_decide_nothing():
    found = only(estimate([1.5, 1.5, 1.5]), MORE)
    assert (found.verdict, found.p) == ("undecided", 1.0)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert decide([]) == []
