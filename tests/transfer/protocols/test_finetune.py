"""Fine-tuning: trained once in full precision, resumable bit for bit, quantized afterwards."""

import pytest
import torch
from torch.nn import functional as F

from lowbit.data import Augment, load, normalization
from lowbit.data.views.labelled_images import ImagesInMemory
from lowbit.quant import FP, set_precision
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import minibatches, stream
from lowbit.transfer import Recipe
from lowbit.transfer.finetuning.training import Network
from lowbit.transfer.recipe.protocol_registry import get_protocol

CPU = torch.device("cpu")


def _recipe(**fields):
    settings = {
        "protocol": "finetune",
        "epochs": 6,
        "lr": 0.05,
        "batch_size": 64,
        "checkpoint_every": 2,
        "precisions": ("FP", "4w4a"),
    }
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


def _fit(net, split, recipe, folder):
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder, key={})
    protocol = get_protocol(recipe.protocol)
    return protocol.fit(net, split, recipe=recipe, workspace=workspace, device=CPU)


def test_training_is_plain_sgd_on_backbone_and_classifier(tiny_net, few_digits, tmp_path):
    recipe = _recipe(epochs=3, milestones=(1, 2))
    net = tiny_net()
    fitted = _fit(net, few_digits, recipe, tmp_path)

    weight = torch.empty(10, 16).normal_(std=0.01, generator=stream(0, "classifier"))
    reference = Network(tiny_net(), weight, torch.zeros(10)).train()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    order, draws = stream(0, "order"), stream(0, "views")
    mean, std = normalization("digits")
    plain = {"jitter_p": 0, "gray_p": 0}
    augment = Augment(32, mean=mean, std=std, scale=(0.8, 1.0), **plain)
    images = load("digits", "train").images[:200]
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.1**epoch
        for batch in minibatches(200, 64, order):
            logits = reference(augment(images[batch], draws))
            optimizer.zero_grad()
            F.cross_entropy(logits, few_digits.labels[batch]).backward()
            optimizer.step()
    trained, wanted = net.state_dict(), reference.backbone.state_dict()
    assert all(trained[name].equal(wanted[name]) for name in wanted)
    assert fitted.predict.heads[FP][0].equal(reference.fc.weight)
    start = tiny_net().state_dict()
    assert not wanted["body.0.weight"].equal(start["body.0.weight"])
    assert not wanted["body.1.running_mean"].equal(start["body.1.running_mean"])


@pytest.mark.parametrize("killed_in_epoch", [1, 3, 5])
def test_a_killed_run_resumes_to_the_same_bits(
    tiny_net, few_digits, tmp_path, monkeypatch, killed_in_epoch
):
    recipe = _recipe()
    straight_net, resumed_net = tiny_net(), tiny_net()
    straight = _fit(straight_net, few_digits, recipe, tmp_path / "straight")

    calls, original = [], ImagesInMemory.batches

    def killing(self, *args, **options):
        for x in original(self, *args, **options):
            calls.append(1)
            if len(calls) == 4 * killed_in_epoch + 2:  # 4 steps an epoch: in the middle of one
                raise KeyboardInterrupt
            yield x

    monkeypatch.setattr(ImagesInMemory, "batches", killing)
    with pytest.raises(KeyboardInterrupt):
        _fit(tiny_net(), few_digits, recipe, tmp_path / "killed")
    monkeypatch.setattr(ImagesInMemory, "batches", original)
    torch.rand(7)  # whatever else the process did meanwhile
    resumed = _fit(resumed_net, few_digits, recipe, tmp_path / "killed")

    wanted, found = straight_net.state_dict(), resumed_net.state_dict()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert resumed.predict.heads[FP][0].equal(straight.predict.heads[FP][0])
    assert resumed.details == straight.details
    curves = [(tmp_path / d / "metrics.jsonl").read_text() for d in ("straight", "killed")]
    assert curves[0] == curves[1] and curves[0].count("\n") == 6


def test_a_finished_training_is_not_done_again(tiny_net, few_digits, tmp_path, monkeypatch):
    recipe = _recipe(epochs=2, warmup_fc={"epochs": 2, "lr": 0.5})
    first = _fit(tiny_net(), few_digits, recipe, tmp_path)

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("lowbit.transfer.finetuning.training.Training._step", never)
    monkeypatch.setattr("lowbit.transfer.finetuning.starting_network.fit_linear", never)
    again = _fit(tiny_net(), few_digits, recipe, tmp_path)
    one, other = (f.predict(few_digits) for f in (first, again))
    assert all(one[precision].equal(other[precision]) for precision in map(str, recipe.precisions))
    assert again.details == first.details


def test_quantization_afterwards_changes_no_weight_and_keeps_the_classifier_fp(
    tiny_net, few_digits, see, tmp_path
):
    net = tiny_net()
    fitted = _fit(net, few_digits, _recipe(precisions=("FP", "8w8a", "2w4a")), tmp_path)
    saved = torch.load(tmp_path / "last.pth", weights_only=True)["network"]
    predictions = fitted.predict(few_digits)
    after = net.state_dict()
    assert all(
        after[n.removeprefix("backbone.")].equal(t) for n, t in saved.items() if "fc" not in n
    )
    heads = fitted.predict.heads
    assert all(weight.equal(saved["fc.weight"]) for weight, _ in heads.values())
    full = Network(tiny_net(), *heads[FP])
    full.load_state_dict(saved)
    with torch.no_grad():
        wanted = full.eval()(see(few_digits)).argmax(dim=1)
    assert predictions["FP"].equal(wanted)  # FP is the fine-tuned network itself
    set_precision(net, "2w4a")
    x = see(few_digits)
    assert (net(x) - full.backbone(x)).abs().max() > 0.01  # and 2w4a is not


def test_the_warm_start_is_the_linear_protocol_s_fp_classifier(
    tiny_net, few_digits, tmp_path, monkeypatch
):
    warm = {"epochs": 4, "lr": 0.7}
    started = []
    monkeypatch.setattr(
        "lowbit.transfer.protocols.finetune.Training.run",
        lambda self, workspace, state: (
            started.append(self.network.fc.weight.detach().clone()) or 0.0
        ),
    )
    _fit(tiny_net(), few_digits, _recipe(warmup_fc=warm), tmp_path / "warm")
    _fit(tiny_net(), few_digits, _recipe(), tmp_path / "cold")
    recipe = _recipe(protocol="linear", weight_decay=0.0, seed=0, **warm)
    monkeypatch.setattr("lowbit.transfer.protocols.linear.stream", _warmup_order)
    linear = _fit(tiny_net(), few_digits, recipe, tmp_path / "linear")
    assert torch.allclose(started[0], linear.predict.heads[FP][0], atol=1e-5)
    assert started[1].std() == pytest.approx(0.01, rel=0.2)


def _warmup_order(seed, name):
    return stream(seed, {"order": "warm-up order"}.get(name, name))


def test_divergence_stops_before_a_bad_state_is_saved(tiny_net, few_digits, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d+ with lr 1e\+20 .*Lower lr"):
        _fit(tiny_net(), few_digits, _recipe(lr=1e20), tmp_path)
    state = Workspace(tmp_path, key={}).resume()
    assert state is None or all(
        t.isfinite().all() for t in state["network"].values() if t.is_floating_point()
    )
