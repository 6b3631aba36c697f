"""Quantization-aware training: a plain loop at each precision from one start, resumable bit for bit."""

import json

import pytest
import torch
from torch.nn import functional as F

from lowbit.backbones import create_backbone, save_backbone
from lowbit.data import Images, open_images
from lowbit.quant import (
    Precision,
    get_policy,
    latent_statistics,
    quantize,
    quantized_layers,
    scales,
)
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import minibatches, stream
from lowbit.transfer import Recipe, run
from lowbit.transfer.analyses.epoch_rows import read_parts
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.views import crop
from lowbit.transfer.finetuning.training import Network, Training
from lowbit.transfer.recipe.protocol_registry import get_protocol
from tests.small_digits import NAME as SMALL_DIGITS

CPU = torch.device("cpu")


def _recipe(**fields):
    settings = {
        "protocol": "qat",
        "epochs": 3,
        "lr": 0.05,
        "batch_size": 64,
        "policy": "lsq",
        "precisions": ("2w2a",),
        "checkpoint_every": 1,
    }
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


def _fit(net, split, recipe, folder, val: Images | None = None):
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder, key={})
    fit = get_protocol("qat").fit
    return fit(net, split, recipe=recipe, workspace=workspace, device=CPU, val=val)


def _network(folder, precision="2w2a"):
    return torch.load(folder / "parts" / precision / "last.pth", weights_only=True)["network"]


def _rows(folder, precision="2w2a"):
    lines = (folder / "parts" / precision / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _reference(network, split, see, recipe):
    """SGD with LSQ, written out: three epochs at half a cosine; scales at the same rate, undecayed."""
    learned = scales(network)
    others = [p for p in network.parameters() if not any(p is s for s in learned)]
    groups = [
        {"params": others, "lr": 0.05, "weight_decay": 1e-4},
        {"params": learned, "lr": 0.05, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    order, draws = stream(0, "order"), stream(0, "views")
    right = [0, 0, 0]
    network.train()
    for epoch, factor in enumerate((1, 0.75, 0.25)):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * factor
        for batch in minibatches(len(split), 64, order):
            x = see(split, crop(recipe, k=epoch), places=batch, generator=draws)
            logits = network(x)
            optimizer.zero_grad()
            F.cross_entropy(logits, split.labels[batch]).backward()
            optimizer.step()
            right[epoch] += int((logits.argmax(1) == split.labels[batch]).sum())
    return [100 * count / len(split) for count in right]


@pytest.mark.parametrize("first_and_last", ["fp", 8])
def test_training_is_plain_sgd_on_weights_and_learned_scales(
    tiny_net, few_digits, see, tmp_path, first_and_last
):
    policy = {"base": "lsq", "first": first_and_last, "last": first_and_last}
    recipe = _recipe(policy=policy)
    fitted = _fit(tiny_net(), few_digits, recipe, tmp_path)

    weight = torch.empty(10, 16).normal_(std=0.01, generator=stream(0, "classifier"))
    reference = Network(tiny_net(), weight, torch.zeros(10))
    quantize(reference, get_policy(policy), Precision(2, 2))  # whose steps are learned
    assert len(quantized_layers(reference)) == {"fp": 2, 8: 4}[first_and_last]
    calibrate_on(reference, few_digits, recipe=recipe, device=CPU)
    start = reference.state_dict()["backbone.body.3.w_quant.q_scale"].clone()
    right = _reference(reference, few_digits, see, recipe)

    found, wanted = _network(tmp_path), reference.state_dict()
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name].equal(wanted[name]), name
    assert not wanted["backbone.body.3.w_quant.q_scale"].equal(start)
    with torch.no_grad():
        classes = reference.eval()(see(few_digits)).argmax(1)
    assert fitted.predict(few_digits)["2w2a"].equal(classes)
    rows = _rows(tmp_path)
    layers = quantized_layers(reference)
    assert [len(row["transitions"]["rate"]) for row in rows] == [len(layers)] * 3
    assert rows[-1]["latent"]["names"] == list(layers)
    distances = latent_statistics(reference)
    assert rows[-1]["latent"]["mean_distance"] == [d["mean_distance"] for d in distances.values()]
    counts = [sum(bins) for bins in rows[-1]["latent"]["histogram"]]
    assert counts == [layer.weight.numel() for layer in layers.values()]
    assert [row["accuracy"]["train"] for row in rows] == pytest.approx(right)
    assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.0375, 0.0125])


@pytest.mark.parametrize(
    ("optimizer", "policy", "section"),
    [
        ("sgd", "lsq", {}),
        ("sgdt", "tr", {}),
        ("adam", "ewgs", {}),
        ("adamt", "tr", {}),
        ("adamwt", "lsq", {}),
        ("sgd", "interval", {"oscillation": {"method": "dampening", "start": 0}}),
        (
            "sgd",
            "lsq",
            {"oscillation": {"method": "freezing", "momentum": 0.01, "threshold": [0.05, 0.02]}},
        ),
        (
            "sgdt",
            "lsq",
            {"transition": {"lambda_": "natural", "controller": "scaled", "highest": 1}},
        ),
    ],
)
def test_a_killed_job_resumes_to_the_same_bits(
    tiny_net, few_digits, tmp_path, monkeypatch, optimizer, policy, section
):
    recipe = _recipe(
        optimizer=optimizer, policy=policy, lr=1e-3, epochs=2, precisions=("FP", "3w3a", "2w2a"),
        fp_start={"epochs": 1, "lr": 0.1}, **section,
    )  # fmt: skip
    val = open_images("digits", "val")
    straight = _fit(tiny_net(), few_digits, recipe, tmp_path / "straight", val)
    original, epochs = Training.train_epoch, []

    def killing(self, stop):
        epochs.append(self.epoch)
        if len(epochs) == 5:  # one of the start, two at 3w3a, the second at 2w2a
            raise KeyboardInterrupt
        return original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_epoch", killing)
        with pytest.raises(KeyboardInterrupt):
            _fit(tiny_net(), few_digits, recipe, tmp_path / "killed", val)
        epochs.clear()
        torch.rand(7)  # whatever else the process did meanwhile
        resumed = _fit(tiny_net(), few_digits, recipe, tmp_path / "killed", val)
    assert epochs == [1]  # nothing that was finished was trained again
    assert resumed.details == straight.details
    for precision in map(str, recipe.precisions):
        one, other = (_network(tmp_path / run, precision) for run in ("straight", "killed"))
        assert all(one[name].equal(other[name]) for name in one)
    assert _rows(tmp_path / "straight") == _rows(tmp_path / "killed")


def test_a_t_variant_s_rates_are_recorded_and_its_weight_scales_stay(
    tiny_net, few_digits, tmp_path
):
    recipe = _recipe(
        optimizer="sgdt",
        policy="interval",  # scales that a plain optimizer would learn
        epochs=4,
        transition={"lambda_": 0.02, "schedule": "linear", "final_target": 0.01},
    )
    details = _fit(tiny_net(), few_digits, recipe, tmp_path).details
    rows = [row["transitions"] for row in _rows(tmp_path)]
    first = 0.02 * 2**0.5  # R_0 = lambda sqrt(b_w), over 4 epochs of 4 steps
    targets = [first + (0.01 - first) * step / 16 for step in (3, 7, 11, 15)]
    assert [row["target"] for row in rows] == pytest.approx(targets)
    assert rows[0]["names"] == ["backbone.body.3", "backbone.body.6"]
    assert all(len(row[key]) == 2 for row in rows for key in ("rate", "running", "lr"))
    assert any(row["running"][0] > 0 for row in rows) and rows[0]["lr"] != rows[-1]["lr"]
    kept = details["transitions"]["2w2a"]  # in the result: means over the two layers
    for key in ("running", "lr", "effective_step"):
        assert kept[key] == pytest.approx([sum(row[key]) / 2 for row in rows], rel=1e-5)
    gaps = [sum(abs(k - row["target"]) for k in row["running"]) / 2 for row in rows]
    assert kept["gap"] == pytest.approx(gaps, rel=1e-5)
    assert kept["target"] == pytest.approx(targets, rel=1e-5)
    start = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
    quantize(start, get_policy("interval"), Precision(2, 2))
    after = _network(tmp_path)
    for name, layer in quantized_layers(start).items():
        assert after[f"{name}.w_quant.q_scale"].equal(layer.w_quant.q_scale)
        assert not after[f"{name}.weight"].equal(layer.weight)


def test_plain_steps_are_counted_by_the_same_measure(tiny_net, few_digits, tmp_path, monkeypatch):
    codes, original = [], Training._step

    def spying(self, *args):
        loss = original(self, *args)
        layers = quantized_layers(self.network).values()
        codes.append([layer.w_quant.codes(layer.weight) for layer in layers])
        return loss

    monkeypatch.setattr(Training, "_step", spying)
    recipe = _recipe(policy="interval", lr=0.3, epochs=2)
    details = _fit(tiny_net(), few_digits, recipe, tmp_path).details
    assert set(details["transitions"]["2w2a"]) == {"running", "effective_step"}
    for epoch, row in enumerate(_rows(tmp_path)):
        last, before = codes[4 * epoch + 3], codes[4 * epoch + 2]
        wanted = [(a != b).double().mean().item() for a, b in zip(last, before, strict=True)]
        assert row["transitions"]["rate"] == pytest.approx(wanted) and max(wanted) > 0


def test_real_weights_below_few_bit_activations_have_no_transitions(tiny_net, few_digits, tmp_path):
    recipe = _recipe(precisions=("32w2a",), epochs=1)
    details = _fit(tiny_net(), few_digits, recipe, tmp_path).details
    (row,) = _rows(tmp_path, "32w2a")
    assert details["transitions"] == {"32w2a": {}}
    assert set(row) == {"epoch", "lr", "loss", "accuracy"}


def test_fp_is_the_start_and_every_precision_begins_there(tiny_net, few_digits, tmp_path):
    recipe = _recipe(precisions=("FP", "8w8a"), lr=1e-12, warmup_fc={"epochs": 60, "lr": 20.0})
    fitted = _fit(tiny_net(), few_digits, recipe, tmp_path)
    start, trained = _network(tmp_path, "FP"), _network(tmp_path, "8w8a")
    original = tiny_net().state_dict()
    assert all(start[f"backbone.{name}"].equal(t) for name, t in original.items())
    assert trained["fc.weight"].sub(start["fc.weight"]).abs().max() < 1e-9
    assert start["fc.weight"].std() > 0.05  # the linear fit's, not the random one's
    assert fitted.details["start"]["kind"] == "warmup-fc"
    classes = fitted.predict(few_digits)
    chance = (0.1 * 0.9 / 200) ** 0.5  # the standard error of guessing
    assert (classes["FP"] == few_digits.labels).float().mean() > 0.1 + 3 * chance
    assert fitted.artifacts["network FP"] == "parts/FP/last.pth"


def test_watching_validation_images_changes_no_bit(tiny_net, few_digits, tmp_path):
    recipe = _recipe(policy="cq", epochs=2)
    val = open_images("digits", "val")
    for name, images in (("with", val), ("without", None)):
        _fit(tiny_net(), few_digits, recipe, tmp_path / name, images)
    one, other = (_network(tmp_path / name) for name in ("with", "without"))
    assert all(one[name].equal(other[name]) for name in one)
    assert "val" not in _rows(tmp_path / "without")[1]["accuracy"]
    watched = _rows(tmp_path / "with")[1]["accuracy"]["val"]
    fitted = _fit(tiny_net(), few_digits, recipe, tmp_path / "with", val)  # finished: only scored
    right = (fitted.predict(val)["2w2a"] == val.labels).sum()
    assert watched == pytest.approx(100 * right / len(val))


def test_bf16_trains_in_another_format_and_scores_in_float32(tiny_net, few_digits, see, tmp_path):
    plain = _recipe(epochs=2, lr=0.1)
    half = _recipe(epochs=2, lr=0.1, amp="bf16")
    _fit(tiny_net(), few_digits, plain, tmp_path / "plain")
    fitted = _fit(tiny_net(), few_digits, half, tmp_path / "half")
    losses = [_rows(tmp_path / name)[1]["loss"]["train"] for name in ("plain", "half")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    network = fitted.predict.args[0]["2w2a"]
    assert {t.dtype for t in network.parameters()} == {torch.float32}
    with torch.no_grad():
        assert fitted.predict(few_digits)["2w2a"].equal(network(see(few_digits)).argmax(1))


def test_a_fp16_step_that_overflows_moves_nothing_and_is_survived(tiny_net, few_digits):
    network = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
    training = Training(network, few_digits, recipe=_recipe(amp="fp16"), device=CPU)
    training.arithmetic.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: t.clone() for name, t in network.named_parameters()}
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    training._step(x, y, 0)
    assert all(t.equal(before[name]) for name, t in network.named_parameters())
    assert training.arithmetic.scaler.get_scale() == 2.0**39
    training.arithmetic.scaler.update(2.0**8)
    training._step(x, y, 1)
    assert not network.fc.bias.equal(before["fc.bias"])
    assert training.state()["arithmetic"]["scaler"]["scale"] == 2.0**8


def test_a_whole_job_reads_test_once_and_its_network_starts_another(tmp_path):
    torch.manual_seed(0)
    save_backbone(tmp_path / "b.pth", create_backbone("resnet10_slim"), {"method": "-"})
    data = {"dataset": SMALL_DIGITS, "image_size": 16, "batch_size": 32}
    settings = {"protocol": "qat", "epochs": 1, "lr": 0.05, **data}
    first = Recipe(checkpoint=str(tmp_path / "b.pth"), precisions=["4w4a"], **settings)
    (tmp_path / "first").mkdir()
    result = run(first, tmp_path / "first")
    assert json.loads(json.dumps(result)) == result
    assert result["details"]["test_reads"] == 1
    rows = {(m["split"], m["precision"]): m["value"] for m in result["measurements"]}
    assert set(rows) == {("test", "4w4a"), ("val", "4w4a")}
    (row,) = read_parts(tmp_path / "first")["4w4a"]  # what figures read
    assert row.accuracy["val"] == rows["val", "4w4a"]
    assert len(row.transitions.names) == len(row.latent.names) > 0

    path = tmp_path / "first" / result["artifacts"]["network 4w4a"]
    second = Recipe(
        checkpoint=str(path),
        architecture="resnet10_slim",
        checkpoint_head=True,
        precisions=["FP", "2w2a"],
        **settings,
    )
    (tmp_path / "second").mkdir()
    again = run(second, tmp_path / "second")
    start, trained = (
        torch.load(file, weights_only=True)["network"]
        for file in (tmp_path / "second" / again["artifacts"]["network FP"], path)
    )
    assert all(start[name].equal(trained[name]) for name in start)
