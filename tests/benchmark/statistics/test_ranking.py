"""Means, intervals, paired differences and ranks against hand-worked numbers and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from lowbit.benchmark.statistics.ranking import (
    Sample,
    holm,
    paired_difference,
    rank_by_holm,
    rank_groups,
    summarize,
)
from lowbit.benchmark.statistics.tukey import critical


def test_summary_by_hand():
    # mean 92.5; squares .25 + .25 + .25 + .25 = 1, so sd = sqrt(1/3); t(.975, 3) = 3.182446
    found = summarize([92.0, 93.0, 92.0, 93.0])
    assert found.mean == 92.5
    assert found.sd == pytest.approx(math.sqrt(1 / 3))
    assert found.n == 4
    half = 3.182446305284263 * math.sqrt(1 / 3) / 2
    assert (found.low, found.high) == pytest.approx((92.5 - half, 92.5 + half))


def test_interval_is_scipys():
    values = np.random.default_rng(1).normal(70, 2, size=7)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert (summarize(values).low, summarize(values).high) == pytest.approx((low, high))
    low, high = stats.t.interval(0.8, 6, values.mean(), stats.sem(values))
    assert summarize(values, alpha=0.2).low == pytest.approx(low)


def test_a_single_seed_has_a_mean_and_no_spread():
    found = summarize([80.0])
    assert (found.mean, found.n) == (80.0, 1)
    assert all(math.isnan(x) for x in (found.sd, found.low, found.high))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_cannot_be_averaged_is_refused(values):
    with pytest.raises(ValueError, match="no summary was made"):
        summarize(values)


def test_paired_difference_by_hand_and_against_the_paired_t_test():
    a, b = [93.0, 94.0, 95.5, 91.0], [92.0, 92.5, 93.5, 91.5]
    found = paired_difference(a, b)  # 1, 1.5, 2, -.5: mean 1
    assert found.mean == 1.0
    assert found.sd == pytest.approx(math.sqrt((0 + 0.25 + 1 + 2.25) / 3))
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_pairing_removes_what_both_sides_share():
    shared = np.array([10.0, 40.0, 90.0])  # an easy, a middling and a hard data set
    found = paired_difference(shared + [1.0, 1.1, 0.9], shared)
    assert found.low > 0
    assert found.sd < 0.2


def test_p_is_that_of_the_paired_t_test():
    a, b = [93.0, 94.0, 95.5, 91.0], [92.0, 92.5, 93.5, 91.5]
    assert paired_difference(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert paired_difference(b, a).p == paired_difference(a, b).p
    assert math.isnan(summarize([1.0]).p) and math.isnan(summarize([1.0, 1.0]).p)


def test_holm_by_hand_and_by_its_definition():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 = .04 .06 .06 .04, the last raised to .06
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0
    draw = np.random.default_rng(3)
    for _ in range(20):
        p = draw.random(9) ** 4
        rejected, order = set(), np.argsort(p)
        for k, place in enumerate(order):  # step down until one is not rejected
            if p[place] > 0.05 / (9 - k):
                break
            rejected.add(int(place))
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


def test_unequal_sides_do_not_pair():
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_difference([1, 2, 3], [1, 2])


def _reference_ranks(rows):
    p = stats.tukey_hsd(*rows).pvalue
    means = [np.mean(row) for row in rows]
    every = range(len(rows))
    return [1 + sum(p[i, j] < 0.05 and means[j] > means[i] for j in every) for i in every]


@pytest.mark.parametrize("draw", range(6))
def test_ranks_are_those_of_scipys_tukey_test(draw):
    generator = np.random.default_rng(draw)
    sizes = generator.integers(2, 6, size=6)
    rows = [generator.normal(generator.normal(80, 1.2), 0.5, size=n) for n in sizes]
    expected = _reference_ranks(rows)
    assert rank_groups([Sample(tuple(row)) for row in rows]) == expected


def test_draws_above_have_ties_and_differences():
    # guards the oracle test against a draw of rows that are all tied or all apart
    generator = np.random.default_rng(0)
    sizes = generator.integers(2, 6, size=6)
    rows = [generator.normal(generator.normal(80, 1.2), 0.5, size=n) for n in sizes]
    assert 1 < len(set(_reference_ranks(rows))) < 6


@pytest.mark.parametrize("rows", [2, 3, 10, 60])
@pytest.mark.parametrize("freedom", [1, 2, 5, 40])
def test_critical_values_are_scipys(rows, freedom):
    expected = stats.studentized_range.ppf(0.95, rows, freedom)
    assert critical(0.05, rows, freedom) == pytest.approx(expected, rel=1e-6)


def test_critical_values_at_their_limits():
    # two means: t sqrt 2; many degrees of freedom: the range of normal means, tables say 3.314
    assert critical(0.01, 2, 7) == pytest.approx(stats.t.ppf(0.995, 7) * math.sqrt(2))
    assert critical(0.05, 3, 100_000) == pytest.approx(3.3146, abs=2e-4)
    assert critical(0.05, 1, 5) == math.inf


def test_many_rows_are_ranked_as_few_at_a_time_would_be():
    # more rows than are held at once, in two groups far apart
    draw = np.random.default_rng(0)
    rows = [tuple(draw.normal(50 + 40 * (k % 2), 0.1, 3)) for k in range(300)]
    ranks = rank_groups([Sample(row) for row in rows])
    assert ranks == [151, 1] * 150


def test_ties_are_ties_and_ranks_count_the_better_rows():
    rows = [(90.0, 90.4), (90.1, 90.3), (80.0, 80.2), (70.0, 70.4), (70.1, 70.2)]
    assert rank_groups([Sample(row) for row in rows]) == [1, 1, 3, 4, 4]


def test_rank_does_not_depend_on_the_order_of_rows():
    rows = [(90.0, 90.4), (85.0, 85.3), (80.0, 80.2)]
    ranks = rank_groups([Sample(row) for row in rows])
    assert rank_groups([Sample(row) for row in reversed(rows)]) == ranks[::-1] == [3, 2, 1]


def test_a_tie_that_is_not_transitive():
    # spread .5 pooled over 3 rows of 3; q(.05; 3, 6) = 4.339, so told apart from .5 * 4.339 / sqrt 3
    apart = 0.5 * 4.339 / math.sqrt(3)  # = 1.2526
    rows = [tuple(center + x for x in (-0.5, 0.0, 0.5)) for center in (82.0, 81.0, 80.0)]
    assert 1.0 < apart < 2.0
    assert rank_groups([Sample(row) for row in rows]) == [1, 1, 2]


def test_a_single_seed_is_tested_with_the_spread_of_the_others():
    rows = [(90.0, 90.2, 90.4), (80.0,), (79.9, 80.1, 80.3)]
    assert rank_groups([Sample(row) for row in rows]) == [1, 2, 2]


def test_single_seeds_everywhere_are_told_apart_by_their_images():
    # 95 % and 90 % of 540: pooled .925, error sqrt(.925 * .075 * 2 / 540) = 1.603 %, z = 3.12
    assert rank_groups([Sample((95.0,), 540), Sample((90.0,), 540)]) == [1, 2]
    assert rank_groups([Sample((93.0,), 540), Sample((92.0,), 540)]) == [1, 1]  # z = .62
    # the level is shared by all pairs: z = 2.09 (p = .037) is enough for one pair, not one of three
    close = [Sample((93.0,), 540), Sample((89.5,), 540)]
    assert rank_groups(close) == [1, 2]
    assert rank_groups([*close, Sample((91.0,), 540)]) == [1, 1, 1]


def test_what_is_no_proportion_is_told_apart_by_its_standard_errors():
    assert rank_groups([Sample((60.0,)), Sample((20.0,))]) == [1, 1]  # unknown: tied
    # 40 of sqrt(1 + 1) is apart, 2 is not
    assert rank_groups([Sample((60.0,), stderr=1.0), Sample((20.0,), stderr=1.0)]) == [1, 2]
    assert rank_groups([Sample((60.0,), stderr=1.0), Sample((58.0,), stderr=1.0)]) == [1, 1]
    assert rank_groups([Sample((60.0,), stderr=1.0), Sample((20.0,))]) == [1, 1]


def test_ranks_by_images_are_holms_over_all_pairs():
    draw = np.random.default_rng(8)
    values = np.sort(draw.normal(80, 3, 150))
    samples = [Sample((value,), stderr=0.8) for value in values.tolist()]
    left, right = np.tril_indices(150, -1)
    p = 2 * stats.norm.sf(abs(values[left] - values[right]) / (0.8 * math.sqrt(2)))
    apart = holm(p) <= 0.05
    worse = np.where(values[left] > values[right], right, left)[apart]
    expected = (1 + np.bincount(worse, minlength=150)).tolist()
    assert rank_groups(samples) == expected
    assert len(set(expected)) > 1 and 0 < apart.mean() < 1


def test_rows_that_all_differ_by_any_test_are_ranked_in_order():
    values = np.array([3.0, 1.0, 2.0])

    def score(rows):
        return 50 * abs(values[rows, None] - values)

    assert rank_by_holm(values, score, lambda z: 2 * stats.norm.sf(z)) == [1, 3, 2]


def test_seeds_that_agree_to_the_last_digit_are_no_spread():
    rows = [Sample((93.1, 93.1), 540), Sample((93.3, 93.3), 540)]
    assert rank_groups(rows) == [1, 1]  # one image of 540
    assert rank_groups([Sample((100.0, 100.0), 9), Sample((100.0, 100.0), 9)]) == [1, 1]


def test_one_row_and_none():
    assert rank_groups([Sample((50.0, 60.0))]) == [1]
    assert rank_groups([]) == []


def test_the_family_of_all_pairs_keeps_its_level():
    # 400 columns of 6 equal rows: at most about 5 % may have any rank but 1 (+ 3 standard errors)
    generator = np.random.default_rng(5)
    wrong = sum(
        set(rank_groups([Sample(tuple(generator.normal(80, 1, 3))) for _ in range(6)])) != {1}
        for _ in range(400)
    )
    assert 0 < wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
