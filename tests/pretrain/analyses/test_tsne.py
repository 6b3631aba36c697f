"""Features, neighbours and the picture of them: against loops, scikit-learn and an image library."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lowbit.backbones import create_backbone
from lowbit.data import load, normalization, normalize
from lowbit.pretrain.analyses.tsne import draw, embed, features, neighbour_accuracy, pick
from lowbit.quant import FP, Precision, calibrate, quantize, set_precision


@pytest.fixture(scope="module")
def train():
    return load("digits", "train")


@pytest.fixture(scope="module")
def held_out():
    return load("digits", "test")


def test_images_are_drawn_by_the_seed_without_repetition(held_out):
    images, labels = pick(held_out, images=100, seed=3)
    again, _ = pick(held_out, images=100, seed=3)
    other, _ = pick(held_out, images=100, seed=4)
    assert images.shape == (100, 3, 32, 32) and len(labels) == 100
    assert torch.equal(images, again) and not torch.equal(images, other)
    everything, labels = pick(held_out, images=5000, seed=0)
    assert torch.equal(everything, held_out.images) and torch.equal(labels, held_out.labels)


def test_at_most_ten_classes_are_drawn(held_out):
    many = replace(held_out, labels=torch.arange(540) % 27)
    images, labels = pick(many, images=5000, seed=0)
    assert labels.unique().tolist() == list(range(10)) and len(images) == len(labels) == 200


def test_features_are_the_backbones_at_each_precision(train, held_out):
    images = held_out.images[:300]
    backbone = create_backbone("resnet10_slim")
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    four = Precision(4, 4)
    found = features(backbone, images, train=train, precisions=[FP, four], policy="ssql", size=32)
    reference = create_backbone("resnet10_slim").eval()
    reference.load_state_dict(state)
    mean, std = normalization("digits")
    with torch.no_grad():
        full = reference(normalize(images, mean, std))
        torch.testing.assert_close(found[FP], full)
        quantize(reference, "ssql")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:512]
        calibrate(reference, [normalize(train.images[order], mean, std)])
        set_precision(reference, four)
        torch.testing.assert_close(found[four], reference(normalize(images, mean, std)))
    assert not torch.allclose(found[four], full, rtol=0.01)


def test_views_of_another_size_are_resized(train, held_out):
    shapes = []
    backbone = create_backbone("resnet10_slim")
    backbone.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape[-2:]))
    features(backbone, held_out.images[:3], train=train, precisions=[FP], policy="ssql", size=16)
    assert set(shapes) == {(16, 16)}


@pytest.mark.parametrize("k", [1, 5, 20])
def test_neighbours_vote_without_the_image_itself(k):
    x = torch.randn(60, 4)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    right = 0
    for i in range(len(x)):  # scikit-learn's classifier on all but one image
        rest = torch.arange(len(x)) != i
        classifier = KNeighborsClassifier(k).fit(x[rest].numpy(), labels[rest].numpy())
        right += int(classifier.predict(x[i : i + 1].numpy())[0] == labels[i])
    assert neighbour_accuracy(x, labels, k=k) == pytest.approx(100 * right / len(x))


def test_too_few_images_for_the_neighbours_are_refused():
    with pytest.raises(
        ValueError, match="20 images do not have 20 neighbours each; nothing was drawn"
    ):
        neighbour_accuracy(torch.randn(20, 3), torch.zeros(20, dtype=torch.int64))


def test_the_embedding_keeps_apart_what_is_apart_and_is_the_seeds():
    labels = torch.arange(90) % 3
    x = torch.randn(90, 8) + 30 * torch.eye(8)[labels]
    points = embed(x, seed=0)
    assert points.shape == (90, 2)
    assert (points == embed(x, seed=0)).all()
    assert neighbour_accuracy(torch.from_numpy(points), labels, k=5) == 100


def test_the_picture_has_a_panel_a_checkpoint_and_precision():
    rows = [
        {"checkpoint": c, "precision": p, "label": i % 2, "x": float(i), "y": float(-i)}
        for c in ("SSQL", "SimSiam")
        for p in ("FP", "4w4a", "2w2a")
        for i in range(6)
    ]
    points = pd.DataFrame(rows)
    accuracy = dict.fromkeys(points.groupby(["checkpoint", "precision"]).groups, 50.0)
    grid = draw(points, accuracy, ["zero", "one"]).axes
    assert [axes.get_title() for axes in grid] == [
        f"{c} at {p}: 20-NN 50.0 %" for c in ("SSQL", "SimSiam") for p in ("FP", "4w4a", "2w2a")
    ]
    assert [text.get_text() for text in grid[0].texts] == ["zero", "one"]
    assert grid[0].collections[0].get_offsets().tolist() == [[0, 0], [2, -2], [4, -4]]
