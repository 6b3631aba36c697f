"""Weighted nearest neighbours against scikit-learn, and training that does not notice them."""

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.data.views.training_views import view_source
from lowbit.pretrain import Recipe, run, running
from lowbit.pretrain.knn import knn_accuracies, knn_accuracy
from tests.small_digits import NAME as SMALL_DIGITS

RECIPE = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "batch_size": 64,
    "dim": 16,
    "hidden_dim": 8,
    "epochs": 2,
    "device": "cpu",
}


def _reference_accuracy(bank, bank_labels, queries, labels, k, temperature):
    """scikit-learn's classifier; of unit vectors, |a - b|^2 = 2 - 2 cos."""
    voting = KNeighborsClassifier(
        k, weights=lambda distance: np.exp((1 - distance**2 / 2) / temperature)
    )
    voting.fit(F.normalize(bank).numpy(), bank_labels.numpy())
    return 100 * voting.score(F.normalize(queries).numpy(), labels.numpy())


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (200, 0.07)])
def test_it_votes_as_scikit_learn(k, temperature):
    labels = torch.randint(0, 4, (900,))
    features = torch.randn(900, 8) + 1.5 * F.one_hot(labels, 8)
    bank, queries = features.double().split([300, 600])
    bank_labels, query_labels = labels.split([300, 600])
    found = knn_accuracy(bank, bank_labels, queries, query_labels, k=k, temperature=temperature)
    expected = _reference_accuracy(bank, bank_labels, queries, query_labels, k, temperature)
    assert found == pytest.approx(expected) and 40 < found < 100


def test_a_small_bank_votes_as_a_whole():
    bank, labels = torch.eye(3), torch.tensor([0, 1, 1])
    # At an even distance of all three, two against one.
    assert knn_accuracy(bank, labels, torch.ones(1, 3), torch.tensor([1])) == 100


def test_it_leaves_the_network_and_chance_as_they_were():
    backbone = create_backbone("resnet10_slim").train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    sources = {
        part: view_source("digits", part, size=8, augmentation={}) for part in ("train", "val")
    }
    chance = torch.get_rng_state()
    found = knn_accuracies(backbone, "ssql", **sources)
    assert list(found) == ["FP", "4w4a"] and found["FP"] > 50  # even an untrained one
    assert torch.equal(torch.get_rng_state(), chance)
    assert backbone.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("pairing", ["plain", "ssql"])
def test_a_run_that_is_watched_is_the_run_that_is_not(tmp_path, pairing):
    folders = [tmp_path / name for name in ("watched", "alone")]
    for folder, every in zip(folders, (1, 0), strict=True):
        folder.mkdir()
        run(Recipe(**RECIPE, pairing=pairing, knn_every=every), folder)
    watched, alone = ((folder / "checkpoint.pth").read_bytes() for folder in folders)
    assert watched == alone
    lines = [json.loads(line) for line in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["knn"][name] <= 100 for line in lines for name in ("FP", "4w4a"))
    assert "knn" not in (folders[1] / "metrics.jsonl").read_text()


def test_test_images_are_never_read(tmp_path, monkeypatch):
    opened = []
    open_source = running.view_source
    monkeypatch.setattr(
        running,
        "view_source",
        lambda d, part, **o: opened.append(part) or open_source(d, part, **o),
    )
    run(Recipe(**{**RECIPE, "epochs": 1}, knn_every=1), tmp_path)
    assert opened == ["train", "train", "val"]
