"""Accuracies against scikit-learn and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from transfer.metrics import accuracy


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
    with pytest.raises(ValueError, match="3 predictions came for 4 labels"):
        accuracy(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long), 2)


def _reference_bootstrap(right, labels, *, per_class, draws, seed):
    """Redraw the images, within their classes if `per_class`; return the accuracies' deviation."""
    draw = np.random.default_rng(seed)
    strata = [right[labels == k] for k in np.unique(labels)] if per_class else [right]
    shares = [draw.choice(x, (draws, len(x))).mean(axis=1) for x in strata]
    return 100 * np.mean(shares, axis=0).std()


@pytest.mark.parametrize("metric", ["top1", "mean_per_class"])
def test_standard_errors_are_what_a_bootstrap_tends_to(metric):
    draw = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [300, 60, 12])
    right = draw.random(len(labels)) < np.array([0.9, 0.6, 0.4])[labels]
    predictions = np.where(right, labels, (labels + 1) % 3)
    found = accuracy(torch.from_numpy(predictions), torch.from_numpy(labels), 3).stderr(metric)
    expected = _reference_bootstrap(
        right, labels, per_class=metric == "mean_per_class", draws=20_000, seed=0
    )
    assert found == pytest.approx(expected, rel=0.02)  # 4 deviations of a deviation of 20,000


def test_standard_errors_by_hand():
    every = accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    assert every.stderr("top1") == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))
    assert every.stderr("mean_per_class") == pytest.approx(100 * math.sqrt(0.25 / 2) / 2)
    sure = accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]), 2)
    assert sure.stderr("top1") == sure.stderr("mean_per_class") == 0.0
