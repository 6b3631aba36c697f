"""Accuracies against scikit-learn and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from lowbit.transfer.scoring.accuracy import accuracy


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


@pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
def test_intervals_are_those_of_a_bootstrap_that_redraws_every_image(metric):
    drawn, found = _reference_bootstrap(metric, draws=20_000, seed=3)
    low, high = found.interval(metric)
    expected = np.quantile(drawn, [0.025, 0.975])
    # top1: counts of 372 images, so equal or one image apart; a quantile of 4,000 draws: .04 sd
    within = 100 / 372 + 1e-9 if metric == "top1" else 4 * 0.042 * drawn.std()
    assert [low, high] == pytest.approx(expected, abs=within)
    assert low < getattr(found, metric) < high


def test_the_interval_of_top1_is_binomial_by_hand():
    # 4 images, 2 right: draws have 0 to 4 right with 1, 4, 6, 4, 1 of 16; 1/16 is over 2.5 %
    assert accuracy(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0]), 2).interval("top1") == (
        0.0,
        100.0,
    )
    # 9 of 10: P(at most 6) = .0128, P(at most 7) = .0702; P(all 10) = .349
    found = accuracy(torch.tensor([0] * 10), torch.tensor([0] * 9 + [1]), 2)
    assert found.interval("top1") == (70.0, 100.0)


def test_intervals_of_equal_counts_are_equal_and_cover_the_truth():
    draw = np.random.default_rng(0)
    covered = 0
    for right in draw.binomial(540, 0.8, size=300):
        found = accuracy(torch.arange(540) // right, torch.zeros(540, dtype=torch.long), 2)
        low, high = found.interval("top1")
        covered += low <= 80 <= high
    assert 0.91 < covered / 300 < 0.985
    again = accuracy(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), 2)
    assert again.interval("mean_per_class") == again.interval("mean_per_class")


def test_an_interval_without_width_is_none():
    sure = accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
    assert sure.interval("top1") is None and sure.interval("mean_per_class") is None


def test_standard_errors_by_hand():
    every = accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    assert every.stderr("top1") == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))
    assert every.stderr("mean_per_class") == pytest.approx(100 * math.sqrt(0.25 / 2) / 2)
    sure = accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
    assert sure.stderr("top1") == sure.stderr("mean_per_class") == 0.0
