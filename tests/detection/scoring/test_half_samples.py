"""Standard errors and intervals from halves of the images, by closed forms, and against known numbers."""

import numpy as np
import pytest
from scipy import stats

from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.scoring.half_samples import (
    draw_halves,
    few_objects,
    spread,
    spread_of_difference,
    spreads,
)
from tests.detection.scoring.annotated_sets import detection, random_set


def test_halves_are_pairs_without_a_common_image_and_always_the_same():
    for n in (10, 11):
        halves = draw_halves(n, 50)
        assert halves.shape == (n, 100) and set(halves.sum(axis=0)) == {5}
        assert ((halves[:, ::2] + halves[:, 1::2]).sum(axis=0) == 10).all()
        assert (halves[:, ::2] + halves[:, 1::2]).max() == 1
        np.testing.assert_array_equal(halves, draw_halves(n, 50))
    assert draw_halves(30, 200).mean(axis=1).min() > 0.45  # every image is in half of them


def test_the_error_of_a_mean_is_its_own():
    """A mean of n values has no bias and the error s / sqrt(n), whichever values these are."""
    values = np.random.default_rng(0).gamma(2, 10, size=400)
    halves = values @ draw_halves(400, 4000) / 200
    known = spread(values.mean(), halves, 400)
    expected = values.std(ddof=1) / 20
    assert known.stderr == pytest.approx(expected, rel=0.03)
    assert [known.low, known.high] == pytest.approx(
        [values.mean() - 1.96 * expected, values.mean() + 1.96 * expected], abs=0.1 * expected
    )


@pytest.mark.parametrize("n", [200, 1000])
def test_a_bias_that_falls_with_two_thirds_is_removed(n):
    excess = 7 * n ** (-2 / 3)
    halves = 40 + 7 * (n / 2) ** (-2 / 3) + np.tile([-2.0, 2.0], 50)
    known = spread(40 + excess, halves, n)
    assert (known.low + known.high) / 2 == pytest.approx(40)
    error = np.hypot(halves.std(ddof=1), 0.4 * excess)  # the bias is known to two fifths
    assert known.high - known.low == pytest.approx(2 * stats.t.ppf(0.975, n - 1) * error)


def test_a_metric_of_eleven_recalls_takes_the_bias_of_the_whole_curve():
    """The interval's centre is the number less the bias that the 2012 metric's halves show."""
    around = np.tile([-2.0, 2.0], 50)
    values = {"AP50_voc07": 60.0, "AP50_voc12": 55.0}
    halves = {"AP50_voc07": 63 + 1.5 * around, "AP50_voc12": 56 + around}
    found = spreads(values, halves, 300, dict.fromkeys(values, ""))
    bias = 1 / (2 ** (2 / 3) - 1)
    for name, known in found.items():
        assert (known.low + known.high) / 2 == pytest.approx(values[name] - bias)
        error = np.hypot(halves[name].std(ddof=1), 0.4 * bias)
        assert known.high - known.low == pytest.approx(2 * stats.t.ppf(0.975, 299) * error)


@pytest.mark.parametrize("seed", range(30))
def test_no_interval_excludes_its_own_number(seed):
    scores = score(*random_set(seed, images=25), intervals=True)
    assert scores.spreads
    for name, known in scores.spreads.items():
        assert 0 <= known.low <= scores.overall[name] <= known.high <= 100


@pytest.mark.parametrize("bias", [-30.0, -1.0, 0.0, 1.0, 30.0])
def test_an_interval_far_from_its_number_reaches_to_it(bias):
    halves = 50 + bias + np.tile([-1.0, 1.0], 50)
    for known in (spread(50.0, halves, 99), spread_of_difference(50.0, halves, 99)):
        assert known.low <= 50 <= known.high and known.high - known.low >= 3.9


def test_a_perfect_detector_and_a_blind_one_have_no_spread():
    truth, _ = random_set(0)
    plain = [{**a, "iscrowd": 0} for a in truth["annotations"]]
    different = {(a["image_id"], *a["bbox"]): a for a in plain}.values()
    perfect = [detection(a["image_id"], a["category_id"], a["bbox"], 0.5) for a in different]
    truth = {**truth, "annotations": list(different)}
    assert score(truth, perfect).overall["AP"] == 100
    for detections in (perfect, []):
        assert score(truth, detections, intervals=True).spreads == {}


def test_a_number_that_one_image_decides_has_no_spread():
    values = np.where(np.arange(100) % 3 == 0, np.nan, np.arange(100.0))
    assert spread(50.0, values, 99) is None  # a third of the halves has no object
    values = np.arange(100.0)
    values[:4] = np.nan
    assert spread(50.0, values, 99).stderr == pytest.approx(values[4:].std(ddof=1))


def test_classes_of_few_objects_are_warned_of():
    assert few_objects(np.array([10, 400, 0])) == ""
    assert few_objects(np.array([9, 1, 400, 0])).startswith("2 of 3 classes have fewer than 10")
    truth, detections = random_set(2, images=4)
    assert "fewer than 10 objects" in score(truth, detections, intervals=True).spreads["AP"].warning
