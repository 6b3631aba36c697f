"""Mean average precision against scikit-learn's."""

import pytest
import torch
from sklearn.metrics import average_precision_score

from lowbit.transfer.scoring.class_ranking import rank_classes, targets_of


def _problem(seed, n=60, classes=7, levels=None):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator)
    targets = torch.rand(n, classes, generator=generator) < 0.2
    targets[0] = True
    if levels is not None:  # few different rows: many ties
        logits = logits[torch.randint(levels, (n,), generator=generator)]
    return logits, targets


@pytest.mark.parametrize("levels", [None, 5, 1])
@pytest.mark.parametrize("seed", range(4))
def test_each_class_is_scikit_learns_average_precision(seed, levels):
    logits, targets = _problem(seed, levels=levels)
    found = rank_classes(logits, targets)
    scores = logits.double().softmax(1).numpy()
    wanted = [
        100 * average_precision_score(targets[:, c].numpy(), scores[:, c])
        for c in range(targets.shape[1])
    ]
    assert found.classes == pytest.approx(wanted, abs=1e-9)
    macro = 100 * average_precision_score(targets.numpy(), scores, average="macro")
    assert found.mean == pytest.approx(macro, abs=1e-9)
    assert found.n == len(logits)


def test_samples_of_equal_probability_count_together_in_any_order():
    logits, targets = _problem(0, levels=4)
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    shuffled = rank_classes(logits[order], targets[order])
    assert shuffled.classes == pytest.approx(rank_classes(logits, targets).classes, abs=1e-9)


def test_a_class_without_samples_is_left_out_of_the_mean():
    logits, targets = _problem(2)
    targets[:, 3] = False
    found = rank_classes(logits, targets)
    others = [value for place, value in enumerate(found.classes) if place != 3]
    assert found.classes[3] is None and found.mean == pytest.approx(sum(others) / 6)


def test_one_label_a_sample_makes_targets():
    made = targets_of(torch.tensor([2, 0]), None, 3)
    assert made.tolist() == [[False, False, True], [True, False, False]]
    given = torch.tensor([[True, True, False], [True, False, False]])
    assert targets_of(torch.tensor([0, 0]), given, 3) is given


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((3, 2), torch.ones(2, 2)), ((2, 2), torch.zeros(2, 2)), ((0, 2), torch.zeros(0, 2))],
)
def test_what_cannot_be_ranked_is_refused(logits, targets):
    with pytest.raises(ValueError, match="no average precision was computed"):
        rank_classes(torch.zeros(logits), targets.bool())
