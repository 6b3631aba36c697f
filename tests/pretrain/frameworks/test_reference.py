"""Two epochs of a recipe against SimSiam in plain torch, fed the same views, in float64."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone, load_backbone
from lowbit.pretrain import Recipe, run
from lowbit.pretrain.frameworks import Framework
from tests.small_digits import COUNTS
from tests.small_digits import NAME as SMALL_DIGITS

DIM, HIDDEN = 24, 12
FIELDS = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "epochs": 2,
    "batch_size": 64,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "dim": DIM,
    "hidden_dim": HIDDEN,
    "device": "cpu",
}


class _SimSiam(nn.Module):
    """Sec. 3 of the paper, with the heads of its code."""

    def __init__(self):
        super().__init__()
        self.f = create_backbone("resnet10_slim")
        width = max(self.f.num_features, DIM)
        self.projector = nn.Sequential(
            nn.Linear(self.f.num_features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, DIM),
            nn.BatchNorm1d(DIM, affine=False),
        )
        self.projector[6].bias.requires_grad = False
        self.predictor = nn.Sequential(
            nn.Linear(DIM, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, DIM),
        )

    def forward(self, x1, x2):
        z1, z2 = self.projector(self.f(x1)), self.projector(self.f(x2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        similarity = nn.CosineSimilarity(dim=1)
        return -(similarity(p1, z2.detach()).mean() + similarity(p2, z1.detach()).mean()) / 2


def _reference(initial, views):
    """The mean loss of each epoch; momentum and weight decay by hand, the cosine an epoch."""
    model = _SimSiam().train()
    names = {"encoder.backbone.": "f.", "encoder.projector.": "projector."}
    for old, new in names.items():
        initial = {key.replace(old, new): value for key, value in initial.items()}
    model.load_state_dict(initial)
    weights = [p for p in model.parameters() if p.requires_grad]
    momentum = [torch.zeros_like(p) for p in weights]
    steps = len(views) // 4  # two epochs of two views a step
    losses = []
    for epoch in range(2):
        rate = 0.1 * (1 + math.cos(math.pi * epoch / 2)) / 2
        for _ in range(steps):
            loss = model(views.pop(0), views.pop(0))
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for p, m, g in zip(weights, momentum, gradients, strict=True):
                    m.mul_(0.9).add_(g + 1e-3 * p)
                    p.sub_(rate * m)
            losses.append(loss.item())
    return [sum(losses[:steps]) / steps, sum(losses[steps:]) / steps], model.f.state_dict()


@pytest.fixture
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double")
def test_two_epochs_reach_the_loss_and_the_weights_of_plain_torch(tmp_path, monkeypatch):
    embed, views, initial = Framework.embed, [], {}

    def recording(self, view, precision, group):
        if not initial:
            initial.update(copy.deepcopy(self.state_dict()))
        views.append(view.double())
        return embed(self, views[-1], precision, group)

    monkeypatch.setattr(Framework, "embed", recording)
    run(Recipe(**FIELDS), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    ours = [json.loads(line)["loss"] for line in lines]
    assert len(views) == 2 * 2 * (COUNTS["train"] // 64) and not torch.equal(views[0], views[1])
    expected, weights = _reference(initial, views)
    assert ours == pytest.approx(expected, abs=1e-5)
    assert abs(expected[1] - expected[0]) > 1e-3  # something moved
    backbone, _ = load_backbone(tmp_path / "checkpoint.pth")
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["byol", "moco_v2"])
def test_a_framework_resumes_to_the_same_bytes(tmp_path, monkeypatch, name):
    """Killed in its second epoch, by an error in the network, and started again."""
    fields = {**FIELDS, "framework": name, "pairing": "ssql", "queue_size": 75, "batch_size": 128}
    recipe = Recipe(**fields, checkpoint_every=1)
    embed, calls = Framework.embed, []

    def dying(self, view, precision, group):
        calls.append(1)
        if len(calls) == 2 * 4 + 6:  # two steps of four embeddings, and one and a half
            raise KeyboardInterrupt
        return embed(self, view, precision, group)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run(recipe, whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Framework, "embed", dying)
        run(recipe, cut)
    assert run(recipe, cut) == expected
    assert (cut / "checkpoint.pth").read_bytes() == (whole / "checkpoint.pth").read_bytes()
    backbone, _ = load_backbone(whole / "checkpoint.pth")
    state = torch.load(whole / "last.pth", weights_only=True)["trainer"]["framework"]
    for key, tensor in backbone.state_dict().items():  # the online network, not its average
        assert torch.equal(tensor, state[f"encoder.backbone.{key}"])
