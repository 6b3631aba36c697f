"""The linear protocol: quantized first, frozen, one classifier a precision."""

import pytest
import torch
from torch.nn import functional as F

from lowbit.data import Crop
from lowbit.data.views.labelled_images import ImagesInMemory
from lowbit.quant import set_precision
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import minibatches, stream
from lowbit.transfer import Recipe
from lowbit.transfer.recipe.protocol_registry import get_protocol

CPU = torch.device("cpu")


def _recipe(**fields):
    settings = {"epochs": 5, "lr": 1.0, "batch_size": 32, "precisions": ("FP", "4w4a", "2w4a")}
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


def _fit(net, split, recipe, folder):
    workspace = Workspace(folder, key={})
    protocol = get_protocol("linear")
    return protocol.fit(net, split, recipe=recipe, workspace=workspace, device=CPU)


def test_frozen_means_bit_equal_buffers_and_weights(tiny_net, few_digits, tmp_path):
    net, before = tiny_net(), tiny_net().state_dict()
    fitted = _fit(net, few_digits, _recipe(), tmp_path)
    fitted.predict(few_digits)
    after = net.state_dict()
    assert any("running_mean" in name for name in before)
    assert all(after[name].equal(before[name]) for name in before)
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_each_classifier_learns_from_its_own_quantized_features(
    tiny_net, few_digits, see, tmp_path
):
    recipe = _recipe()
    net = tiny_net()
    fitted = _fit(net, few_digits, recipe, tmp_path)
    x = see(few_digits)
    for precision in recipe.precisions:
        # The same fit with nn.Linear on features computed here, in one pass.
        set_precision(net, precision)
        with torch.no_grad():
            features = net(x)
        fc = torch.nn.Linear(16, 10)
        with torch.no_grad():
            fc.weight.normal_(std=0.01, generator=stream(0, "classifier"))
            fc.bias.zero_()
        optimizer = torch.optim.SGD(fc.parameters(), lr=1.0, momentum=0.9)
        order = stream(0, "order")
        for epoch in range(5):
            optimizer.param_groups[0]["lr"] = [1, 1, 1, 0.1, 0.01][epoch]  # decays at 3 and 4
            for batch in minibatches(200, 32, order):
                optimizer.zero_grad()
                F.cross_entropy(fc(features[batch]), few_digits.labels[batch]).backward()
                optimizer.step()
        weight, bias = fitted.predict.heads[precision]
        assert torch.allclose(weight, fc.weight, atol=1e-4)
        assert torch.allclose(bias, fc.bias, atol=1e-4)
        wanted = fc(features).argmax(dim=1)
        assert (fitted.predict(few_digits)[str(precision)] == wanted).float().mean() > 0.98


def test_two_runs_are_bit_equal_and_seeds_differ(tiny_net, few_digits, tmp_path):
    heads = []
    for run, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(run)
        folder.mkdir()
        fitted = _fit(tiny_net(), few_digits, _recipe(seed=seed, augment_views=2), folder)
        heads.append(fitted.predict.heads)
    curves = [(tmp_path / str(run) / "metrics.jsonl").read_text() for run in range(3)]
    for precision in _recipe().precisions:
        assert heads[0][precision][0].equal(heads[1][precision][0])
        assert not heads[0][precision][0].equal(heads[2][precision][0])
    assert curves[0] == curves[1] != curves[2]


def test_augmented_views_are_cycled_over_the_epochs(tiny_net, few_digits, tmp_path, monkeypatch):
    drawn = []
    original = ImagesInMemory.batches

    def recording(self, view, **options):
        for x in original(self, view, **options):
            if isinstance(view, Crop):
                drawn.append(x)
            yield x

    monkeypatch.setattr(ImagesInMemory, "batches", recording)
    recipe = _recipe(augment_views=3, precisions=("FP", "4w4a"))
    fitted = _fit(tiny_net(), few_digits, recipe, tmp_path)
    distinct = {x.numpy().tobytes() for x in drawn}
    assert len(distinct) == 3  # three views, alike for both precisions
    assert fitted.details["augment_views"] == 3


def test_infinite_features_stop_the_job_at_its_calibration(tiny_net, few_digits, tmp_path):
    net = tiny_net()
    net.body[-2].bias.data.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="NaN or infinity entered"):
        _fit(net, few_digits, _recipe(precisions=("FP",)), tmp_path)
