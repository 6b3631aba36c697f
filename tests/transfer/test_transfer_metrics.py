"""Accuracies against scikit-learn and by hand."""

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
