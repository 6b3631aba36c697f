"""Paired tests over shared images, by hand, against exact enumeration and naive bootstraps."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lowbit.benchmark.statistics.paired_image_tests import compare_answers, compare_halves

ONE_CLASS = np.zeros(200)


def _answers(both, only_a, only_b, neither):
    counts = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], counts) == 1, np.repeat([1, 0, 1, 0], counts) == 1


@pytest.mark.parametrize(("only_a", "only_b"), [(12, 3), (3, 12), (20, 18), (0, 5), (0, 0)])
def test_top1_is_mcnemars_exact_test(only_a, only_b):
    n = only_a + only_b
    a, b = _answers(150, only_a, only_b, 200 - 150 - n)
    expected = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    found = compare_answers(a, b, ONE_CLASS)
    assert found.p == pytest.approx(expected)
    assert compare_answers(b, a, ONE_CLASS).p == pytest.approx(expected)


def test_the_interval_is_a_bootstrap_that_redraws_every_image():
    a, b = _answers(120, 30, 12, 38)
    found = compare_answers(a, b, ONE_CLASS)
    draw = np.random.default_rng(9)
    places = draw.integers(200, size=(8000, 200))
    drawn = 100 * (a[places].mean(axis=1) - b[places].mean(axis=1))
    # differences are multiples of .5, and the quantile of 4,000 draws is .04 sd off
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.8)
    # pairing narrows it: unpaired, the error would be that of two independent accuracies
    unpaired = 100 * math.sqrt((a.mean() * (1 - a.mean()) + b.mean() * (1 - b.mean())) / 200)
    assert found.high - found.low < 0.9 * 2 * 1.96 * unpaired


def test_a_mean_per_class_is_tested_within_its_classes():
    labels = np.repeat([0, 1], [40, 6])
    a, b = np.ones(46, dtype=bool), np.ones(46, dtype=bool)
    b[:5] = False  # five of the large class: 12.5 points of it
    a[40:42] = False  # two of the small one: 33.3 points of it
    found = compare_answers(a, b, labels)

    def difference(signs):
        return sum(signs[:5]) / 40 / 2 + sum(signs[5:]) / 6 / 2

    observed = abs(difference((1,) * 5 + (-1,) * 2))
    exact = [
        abs(difference(signs)) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=7)
    ]
    assert found.p == pytest.approx(np.mean(exact), abs=0.03)
    assert found.low < 100 * (5 / 80 - 2 / 12) < found.high


def test_intervals_of_differences_cover_the_true_one():
    draw = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), [60, 30, 20, 8])
    p = np.array([[0.9, 0.8, 0.8, 0.85], [0.8, 0.75, 0.75, 0.8]])  # of being right, by class
    truth, covered = 100 * (p[0] - p[1]).mean(), 0
    for _ in range(500):
        hard = draw.random(118)  # what is hard for one is often hard for the other
        alone = np.where(draw.random(118) < 0.7, hard, draw.random(118))
        found = compare_answers(hard < p[0, labels], alone < p[1, labels], labels)
        covered += found.low <= truth <= found.high
    assert 0.9 < covered / 500 < 0.99


def test_equal_networks_are_rarely_told_apart():
    draw = np.random.default_rng(2)
    hard = draw.random(200)  # what is hard for one is hard for the other
    labels = np.arange(200) % 4
    p = [
        compare_answers(draw.random(200) > hard, draw.random(200) > hard, labels).p
        for _ in range(60)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)


def test_agreement_on_every_image_leaves_an_interval():
    right, _ = _answers(150, 0, 0, 50)
    found = compare_answers(right, right, ONE_CLASS)
    assert found.p == 1 and found.low == -found.high < 0
    assert found.high < 100 * 3 / 200  # fewer than three of 200 would differ


def test_halves_share_what_both_sides_share():
    draw = np.random.default_rng(0)
    shared = draw.normal(40, 3, size=1000)  # easy and hard halves of the images
    a, b = shared + 1 + draw.normal(0, 0.2, 1000), shared
    found = compare_halves(1.0, a - b, 500)
    assert found.low < 1 < found.high and found.high - found.low < 5 * 0.2
    assert found.p < 1e-5
    mirrored = compare_halves(-1.0, b - a, 500)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p == pytest.approx(found.p)
    independent = compare_halves(1.0, a - draw.permutation(b), 500)
    assert independent.low < 0 < independent.high and independent.p > 0.5


def test_what_a_difference_owes_to_few_images_is_taken_from_it():
    """Halves that lie 1 higher mean that the difference is 1 / (2^(2/3) - 1) too high."""
    halves = 3.0 + np.tile([-0.5, 0.5], 100)
    found = compare_halves(2.0, halves, 200)
    bias = 1 / (2 ** (2 / 3) - 1)
    error = math.hypot(halves.std(ddof=1), 0.4 * bias)
    assert found.low == pytest.approx(2.0 - bias - stats.t.ppf(0.975, 199) * error)
    assert found.p == pytest.approx(2 * stats.t.sf((2.0 - bias) / error, 199))
    assert found.high == 2.0  # the interval reaches to the difference itself


def test_halves_without_objects_are_left_out_until_they_are_many():
    halves = np.linspace(1, 2, 100)
    halves[:4] = np.nan
    assert compare_halves(1.5, halves, 99) == compare_halves(1.5, halves[4:], 99)
    halves[:6] = np.nan
    assert compare_halves(1.5, halves, 99) is None


def test_a_bias_that_is_known_otherwise_moves_the_interval():
    halves = 3.0 + np.tile([-1.0, 1.0], 50)
    own, given = compare_halves(2.0, halves, 99), compare_halves(2.0, halves, 99, bias=0.0)
    assert given.low + given.high == pytest.approx(2 * 2.0)
    assert own.low < given.low and own.p > given.p
