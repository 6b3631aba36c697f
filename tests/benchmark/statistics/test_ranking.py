"""Means, intervals, paired differences and ranks against hand-worked numbers and scipy."""

import dataclasses
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


def _seeds(values, **facts):
    """A row tested on so many images that they add no error."""
    return Sample(tuple(values), stderr=0.0, **facts)


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
    assert rank_groups([_seeds(row) for row in rows]) == expected


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
    ranks = rank_groups([_seeds(row) for row in rows])
    assert ranks == [151, 1] * 150


def test_ties_are_ties_and_ranks_count_the_better_rows():
    rows = [(90.0, 90.4), (90.1, 90.3), (80.0, 80.2), (70.0, 70.4), (70.1, 70.2)]
    assert rank_groups([_seeds(row) for row in rows]) == [1, 1, 3, 4, 4]


def test_rank_does_not_depend_on_the_order_of_rows():
    rows = [(90.0, 90.4), (85.0, 85.3), (80.0, 80.2)]
    ranks = rank_groups([_seeds(row) for row in rows])
    assert rank_groups([_seeds(row) for row in reversed(rows)]) == ranks[::-1] == [3, 2, 1]


def test_a_tie_that_is_not_transitive():
    # spread .5 pooled over 3 rows of 3; q(.05; 3, 6) = 4.339, so told apart from .5 * 4.339 / sqrt 3
    apart = 0.5 * 4.339 / math.sqrt(3)  # = 1.2526
    rows = [tuple(center + x for x in (-0.5, 0.0, 0.5)) for center in (82.0, 81.0, 80.0)]
    assert 1.0 < apart < 2.0
    assert rank_groups([_seeds(row) for row in rows]) == [1, 1, 2]


def test_a_single_seed_is_tested_with_the_spread_of_the_others():
    rows = [(90.0, 90.2, 90.4), (80.0,), (79.9, 80.1, 80.3)]
    assert rank_groups([_seeds(row) for row in rows]) == [1, 2, 2]


def _share(percent, images=540):
    """A row of one seed: a share of right answers, with its binomial error."""
    stderr = math.sqrt(percent * (100 - percent) / images)
    return Sample((percent,), stderr=stderr, images=images, unit=100 / images)


def test_single_seeds_everywhere_are_told_apart_by_their_images():
    # 95 % and 90 % of 540: errors .938 and 1.291, and 2 more images of 100 / 540 % each: 1.617, z = 3.09
    assert rank_groups([_share(95.0), _share(90.0)]) == [1, 2]
    assert rank_groups([_share(93.0), _share(92.0)]) == [1, 1]
    # the level is shared by all pairs: z = 2.04 (p = .042) is enough for one pair, not one of three
    assert rank_groups([_share(93.0), _share(89.5)]) == [1, 2]
    assert rank_groups([_share(93.0), _share(89.5), _share(91.0)]) == [1, 1, 1]
    assert rank_groups([_share(100.0, 9), _share(100.0, 9)]) == [1, 1]


def test_what_is_no_proportion_is_told_apart_by_its_standard_errors():
    one, far, near = (Sample((value,), stderr=1.0) for value in (60.0, 20.0, 58.0))
    assert rank_groups([one, far]) == [1, 2]  # 40 of sqrt(1 + 1)
    assert rank_groups([one, near]) == [1, 1]


def test_a_row_whose_error_over_images_is_unknown_is_tied():
    assert rank_groups([Sample((60.0,)), Sample((20.0,))]) == [1, 1]
    assert rank_groups([Sample((60.0, 60.1)), Sample((20.0, 20.1))]) == [1, 1]
    known = Sample((60.0, 60.1), stderr=1.0)
    assert rank_groups([known, Sample((20.0, 20.1)), Sample((20.0, 20.1), stderr=1.0)]) == [1, 1, 2]


def _answers(right):
    """A row of one seed whose answers to the same images are known."""
    right, unit = np.asarray(right, dtype=float), 100 / len(right)
    deviations = unit * (right - right.mean())
    return Sample(
        (100 * float(right.mean()),),
        images=len(right),
        deviations=deviations,
        answered="same",
        unit=unit,
    )


@pytest.mark.parametrize("images", [60, 540])
@pytest.mark.parametrize("one, other", [(6, 0), (5, 0), (8, 1), (7, 1), (9, 2), (30, 14), (30, 18)])
def test_answers_to_the_same_images_are_told_apart_as_by_mcnemars_exact_test(images, one, other):
    a, b = np.ones(images, bool), np.ones(images, bool)
    b[:one], a[one : one + other] = False, False
    exact = stats.binomtest(other, one + other).pvalue
    assert rank_groups([_answers(a), _answers(b)]) == ([1, 2] if exact <= 0.05 else [1, 1])


def test_the_same_images_are_paired_only_if_both_answered_them():
    a, b = np.ones(540, bool), np.arange(540) >= 10
    a[200:230] = b[200:230] = False  # hard for both
    one, other = _answers(a), _answers(b)
    assert rank_groups([one, other]) == [1, 2]  # 10 to 0
    elsewhere = dataclasses.replace(other, answered="others")
    assert rank_groups([one, elsewhere]) == [1, 1]  # 1.85 points of an error of 1.4


def test_seeds_that_agree_leave_the_images_to_decide_and_more_seeds_make_no_more_images():
    # ten test images of 540 in every seed: certain over seeds, nothing over images
    rows = [(95.926, 95.926 + 1e-12), (94.074, 94.074)]
    found = [Sample(row, stderr=0.9, images=540, unit=100 / 540) for row in rows]
    assert rank_groups([_seeds(row) for row in ((95.926, 95.93), (94.074, 94.08))]) == [1, 2]
    assert rank_groups(found) == [1, 1]
    many = [Sample(row * 50, stderr=0.9, images=540, unit=100 / 540) for row in rows]
    assert rank_groups(many) == [1, 1]


def test_the_error_of_a_difference_adds_seeds_and_images():
    # seeds: .5 pooled over 2 rows of 3, variance .1667; images 2 x .3 squared = .18: error .589.
    # Satterthwaite: .3467^2 / (.1667^2 / 4) = 17.3, so t at 15 degrees of freedom, 2.131: 1.255
    def rows(gap):
        return [
            Sample(tuple(80 + shift + x for x in (-0.5, 0.0, 0.5)), stderr=0.3)
            for shift in (gap, 0.0)
        ]

    assert rank_groups(rows(1.24)) == [1, 1]
    assert rank_groups(rows(1.27)) == [1, 2]


def test_rows_that_all_differ_by_any_test_are_ranked_in_order():
    values = np.array([3.0, 1.0, 2.0])

    def score(rows):
        return 50 * abs(values[rows, None] - values)

    assert rank_by_holm(values, score, lambda z: 2 * stats.norm.sf(z)) == [1, 3, 2]


def test_one_row_and_none():
    assert rank_groups([Sample((50.0, 60.0))]) == [1]
    assert rank_groups([]) == []


def test_the_family_of_all_pairs_keeps_its_level():
    # 400 columns of 6 equal rows: at most about 5 % may have any rank but 1 (+ 3 standard errors)
    generator = np.random.default_rng(5)
    wrong = sum(
        set(rank_groups([_seeds(generator.normal(80, 1, 3)) for _ in range(6)])) != {1}
        for _ in range(400)
    )
    assert 0 < wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
