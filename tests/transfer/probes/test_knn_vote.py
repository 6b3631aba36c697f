"""k nearest neighbours against the definition, image by image."""

import math

import pytest
import torch

from lowbit.training.job_state import Workspace
from lowbit.transfer import Recipe
from lowbit.transfer.probes import knn_vote
from lowbit.transfer.probes.knn_vote import vote
from lowbit.transfer.recipe.protocol_registry import get_protocol


def _reference_vote(query, bank, labels, *, num_classes, k, temperature):
    """One image, in plain Python."""
    similarity = []
    for place, row in enumerate(bank.tolist()):
        dot = sum(a * b for a, b in zip(query.tolist(), row, strict=True))
        norms = math.hypot(*query.tolist()) * math.hypot(*row)
        similarity.append((dot / norms, labels[place].item()))
    scores = [0.0] * num_classes
    for s, label in sorted(similarity, reverse=True)[:k]:
        scores[label] += math.exp(s / temperature)
    return scores.index(max(scores))


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (200, 0.1), (1, 0.07), (10**6, 0.1)])
def test_votes_are_those_of_the_definition_in_parts_of_any_size(k, temperature, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    bank = torch.randn(310, 6, generator=generator).double()
    labels = torch.randint(5, (310,), generator=generator)
    queries = torch.randn(40, 6, generator=generator).double()
    options = {"num_classes": 5, "k": k, "temperature": temperature}
    wanted = [_reference_vote(query, bank, labels, **options) for query in queries]
    assert len(set(wanted)) > 1
    assert vote(queries, bank, labels, **options).tolist() == wanted
    monkeypatch.setattr(knn_vote, "_BANK", 64)
    monkeypatch.setattr(knn_vote, "_QUERIES", 7)
    assert vote(queries, bank, labels, **options).tolist() == wanted


def test_training_images_recognize_themselves_and_nothing_is_trained(
    tiny_net, few_digits, tmp_path
):
    recipe = Recipe(checkpoint="b.pth", protocol="knn", knn_k=1, precisions=("FP", "4w4a"))
    net, before = tiny_net(), tiny_net().state_dict()
    fitted = get_protocol("knn").fit(
        net,
        few_digits,
        recipe=recipe,
        workspace=Workspace(tmp_path, key={}),
        device=torch.device("cpu"),
    )
    found = fitted.predict(few_digits)
    assert all(found[precision].equal(few_digits.labels) for precision in ("FP", "4w4a"))
    assert all(net.state_dict()[name].equal(before[name]) for name in before)
