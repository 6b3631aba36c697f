"""Accuracies against scikit-learn and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from lowbit.transfer.scoring.accuracy import Accuracy, accuracy


def test_accuracies_equal_sklearns_on_unbalanced_classes():
    generator = torch.Generator().manual_seed(3)
    labels = torch.multinomial(
        torch.tensor([0.6, 0.3, 0.08, 0.02]), 500, replacement=True, generator=generator
    )
    noise = torch.randint(4, (500,), generator=generator)
    keep = torch.rand(500, generator=generator) < 0.7
    predictions = torch.where(keep, labels, noise)
    found = accuracy(predictions, labels, 4)
    assert found.top1 == pytest.approx(100 * accuracy_score(labels, predictions), abs=1e-9)
    assert found.mean_per_class == pytest.approx(
        100 * balanced_accuracy_score(labels, predictions), abs=1e-9
    )
    assert abs(found.top1 - found.mean_per_class) > 1  # the two averages do differ here


def test_counts_by_hand_and_a_class_without_images():
    found = accuracy(torch.tensor([0, 1, 1, 3]), torch.tensor([0, 0, 1, 1]), 4)
    assert (found.counts, found.correct, found.n) == ((2, 2, 0, 0), (1, 1, 0, 0), 4)
    assert found.top1 == found.mean_per_class == 50.0  # over the two classes that have images


def test_a_missing_prediction_is_refused():
    with pytest.raises(ValueError, match="there are 3 predictions for 4 labels"):
        accuracy(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long), 2)


def _reference_bootstrap(metric, *, draws, seed):
    """Redraw every image, within its class for a mean per class; return accuracies and the true one."""
    draw = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [300, 60, 12])
    right = draw.random(len(labels)) < np.array([0.9, 0.6, 0.4])[labels]
    draw = np.random.default_rng(seed)
    per_class = metric == "mean_per_class"
    strata = [right[labels == k] for k in np.unique(labels)] if per_class else [right]
    shares = [draw.choice(x, (draws, len(x))).mean(axis=1) for x in strata]
    predictions = np.where(right, labels, (labels + 1) % 3)
    found = accuracy(torch.from_numpy(predictions), torch.from_numpy(labels), 3)
    return 100 * np.mean(shares, axis=0), found


@pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
def test_standard_errors_are_what_a_bootstrap_tends_to(metric):
    drawn, found = _reference_bootstrap(metric, draws=20_000, seed=0)
    # 4 deviations of a deviation of 20,000
    assert found.stderr(metric) == pytest.approx(drawn.std(), rel=0.02)


def _of_counts(correct, counts):
    """Return the accuracy of so many right answers in classes of so many images."""
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    right = torch.from_numpy(
        np.concatenate([np.arange(n) < c for c, n in zip(correct, counts, strict=True)])
    )
    return accuracy(torch.where(right, labels, len(counts)), labels, len(counts))


@pytest.mark.parametrize("right", [0, 1, 37, 299, 300])
def test_the_interval_of_top1_is_wilsons(right):
    expected = stats.binomtest(right, 300).proportion_ci(method="wilson")
    found = _of_counts([right], [300]).interval("top1")
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)


@pytest.mark.parametrize("right", [0, 3, 20, 40])
def test_a_mean_over_classes_of_equal_size_and_accuracy_has_wilsons_interval(right):
    expected = stats.binomtest(5 * right, 200).proportion_ci(method="wilson")
    found = _of_counts([right] * 5, [40] * 5).interval("mean_per_class")
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)


def test_no_interval_excludes_its_own_accuracy():
    draw = np.random.default_rng(0)
    for _ in range(300):
        counts = draw.integers(1, 30, size=draw.integers(1, 8))
        found = _of_counts(draw.binomial(counts, draw.choice([0, 0.1, 0.8, 1])), counts)
        for metric in ("top1", "mean_per_class"):
            low, high = found.interval(metric)
            assert 0 <= low <= getattr(found, metric) <= high <= 100 and high - low > 1


def _coverage(metric, counts, shares, *, draws=2000):
    """Return the share of samples whose interval holds the true accuracy."""
    correct = np.random.default_rng(5).binomial(counts, shares, size=(draws, len(counts)))
    truth = 100 * (
        np.mean(shares) if metric == "mean_per_class" else np.average(shares, weights=counts)
    )
    ends = (Accuracy(tuple(counts), tuple(row)).interval(metric) for row in correct.tolist())
    return np.mean([low <= truth <= high for low, high in ends])


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ([300], [0.8]),
        ([100], [0.99]),
        ([5] * 20, [0.85] * 20),
        ([1] * 60, [0.9] * 60),
        ([200, 50, 20, 8, 3, 1], [0.9, 0.8, 0.85, 0.7, 0.8, 0.75]),
    ],
)
def test_intervals_cover_the_true_accuracy(counts, shares):
    metric = "top1" if len(counts) == 1 else "mean_per_class"
    covered = _coverage(metric, counts, shares)
    assert 0.915 < covered < 0.99


def test_standard_errors_by_hand():
    every = accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    assert every.stderr("top1") == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))
    assert every.stderr("mean_per_class") == pytest.approx(100 * math.sqrt(0.25 / 2) / 2)
    sure = accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
    assert sure.stderr("top1") == sure.stderr("mean_per_class") == 0.0
