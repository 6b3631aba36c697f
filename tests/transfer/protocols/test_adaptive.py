"""Adaptive bit-widths: every method, resumable bit for bit, scored where it was not trained, stored."""

import json

import pytest
import torch
from torch.nn import functional as F

from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.data.views.labelled_images import ImagesInMemory
from lowbit.quant import get_policy, set_precision
from lowbit.training.job_state import Workspace
from lowbit.transfer import Recipe
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.nested_file import read_nested
from lowbit.transfer.recipe.board_labels import protocol_label
from lowbit.transfer.recipe.protocol_registry import get_protocol

CPU = torch.device("cpu")


def _backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallResNet((1, 1), (8, 16), stem_stride=2, shortcut="conv")
    return net.eval()


def _recipe(method="coquant", bits=(8, 2), zero_shot=(4,), section=(), **fields):
    settings = {"epochs": 3, "lr": 0.02, "batch_size": 64, "checkpoint_every": 1, "image_size": 16}
    chosen = {"method": method, "bits": bits, "zero_shot": zero_shot, "norm_batches": 2}
    return Recipe(
        protocol="adaptive",
        checkpoint="b.pth",
        adaptive={**chosen, **dict(section)},
        **{**settings, **fields},
    )


def _fit(split, recipe, folder, backbone=None, val=None):
    folder.mkdir(exist_ok=True)
    return get_protocol(recipe.protocol).fit(
        backbone or _backbone(),
        split,
        recipe=recipe,
        workspace=Workspace(folder, key={}),
        device=CPU,
        val=val,
    )


def _state(folder, name):
    return torch.load(folder / "parts" / name / "last.pth", weights_only=True)["network"]


def test_the_paper_s_settings_are_the_defaults():
    recipe = Recipe(protocol="adaptive", checkpoint="b.pth")
    assert list(map(str, recipe.precisions)) == [
        "8w8a",
        "6w6a",
        "4w4a",
        "2w2a",
        "7w7a",
        "5w5a",
        "3w3a",
    ]
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (350, 128, 0.1)
    assert recipe.adaptive.method == "coquant" and protocol_label(recipe) == "adaptive-coquant"
    assert recipe.policy == "coquant"


@pytest.mark.parametrize("killed_in_epoch", [0, 2])
def test_a_killed_run_resumes_to_the_same_bits(few_digits, tmp_path, monkeypatch, killed_in_epoch):
    recipe = _recipe(bits=(8, 4, 2), zero_shot=(3,), section={"swap_probability": 0.3})
    straight = _fit(few_digits, recipe, tmp_path / "straight", val=few_digits)

    calls, original = [], ImagesInMemory.batches

    def killing(self, view, **options):
        for x in original(self, view, **options):
            if options.get("generator") is not None:  # a training batch
                calls.append(1)
                if len(calls) == 4 * killed_in_epoch + 2:
                    raise KeyboardInterrupt
            yield x

    monkeypatch.setattr(ImagesInMemory, "batches", killing)
    with pytest.raises(KeyboardInterrupt):
        _fit(few_digits, recipe, tmp_path / "killed", val=few_digits)
    monkeypatch.setattr(ImagesInMemory, "batches", original)
    torch.rand(7)  # whatever else the process did meanwhile
    resumed = _fit(few_digits, recipe, tmp_path / "killed", val=few_digits)

    wanted, found = (_state(tmp_path / d, "coquant") for d in ("straight", "killed"))
    assert wanted.keys() == found.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert resumed.details == straight.details
    curves = [(tmp_path / d / "parts/coquant/metrics.jsonl") for d in ("straight", "killed")]
    assert curves[0].read_text() == curves[1].read_text()
    one, other = (fitted.predict(few_digits) for fitted in (straight, resumed))
    assert all(one[precision].equal(other[precision]) for precision in map(str, recipe.precisions))


def test_the_curve_says_what_each_bit_width_does(few_digits, tmp_path):
    fitted = _fit(few_digits, _recipe(bits=(8, 4, 2), zero_shot=()), tmp_path, val=few_digits)
    rows = (tmp_path / "parts/coquant/metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    seen = last["precisions"]
    assert set(seen) == {"8w8a", "4w4a", "2w2a"}
    assert "teachers" not in seen["8w8a"] and seen["4w4a"]["teachers"] == {"8w8a": 1.0}
    assert sum(seen["2w2a"]["teachers"].values()) == pytest.approx(1)
    assert last["loss"]["train"] == pytest.approx(
        sum(row["loss"] for row in seen.values()), rel=1e-5
    )
    assert last["accuracy"]["val"] == pytest.approx(sum(r["val"] for r in seen.values()) / 3)
    classes = fitted.predict(few_digits)
    for precision, row in seen.items():
        assert row["val"] == 100 * int((classes[precision] == few_digits.labels).sum()) / 200
    assert fitted.details["swap_blocks"] == 2


def test_one_bit_width_is_quantization_aware_training(few_digits, tmp_path):
    shared = {"epochs": 2, "lr": 0.02, "batch_size": 64, "milestones": (1,), "image_size": 16}
    alone = _recipe(bits=(4,), zero_shot=(), **shared)
    _fit(few_digits, alone, tmp_path / "adaptive")
    no_head = {"base": "coquant", "last": "fp"}  # only the classifier's constant factor differs
    own = _recipe(bits=(4,), zero_shot=(), policy=no_head, **shared)
    _fit(few_digits, own, tmp_path / "own")
    qat = Recipe(
        protocol="qat",
        checkpoint="b.pth",
        policy=no_head,
        precisions=("4w4a",),
        schedule="step",
        scale_lr=0.1,
        scale_weight_decay=1e-4,
        **shared,
    )
    _fit(few_digits, qat, tmp_path / "qat")
    wanted, found = _state(tmp_path / "qat", "4w4a"), _state(tmp_path / "own", "coquant")
    assert wanted.keys() == found.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert not _state(tmp_path / "adaptive", "coquant")["fc.weight"].equal(found["fc.weight"])


def test_individual_networks_are_trained_one_by_one(few_digits, tmp_path):
    fitted = _fit(few_digits, _recipe("individual", zero_shot=(4,)), tmp_path)
    assert set(fitted.artifacts) == {"network 8w8a", "network 2w2a"}
    assert fitted.details["zero_shot"] == ["4w4a"]
    assert fitted.details["zero_shot_from"] == {"4w4a": "8w8a"}
    assert fitted.details["norm_batches"] == 2
    assert "nested" not in fitted.details
    joint = _fit(few_digits, _recipe(bits=(2,), zero_shot=()), tmp_path / "joint")
    both = [_state(tmp_path, "2w2a"), _state(tmp_path / "joint", "coquant")]
    assert all(both[0][name].equal(both[1][name]) for name in both[0])
    classes = [f.predict(few_digits)["2w2a"] for f in (fitted, joint)]
    assert classes[0].equal(classes[1])


@pytest.mark.parametrize("method", ["coquant", "adabits", "switchable-bn"])
def test_the_stored_model_predicts_as_the_network_at_every_bit_width(
    few_digits, see, tmp_path, method
):
    recipe = _recipe(method, bits=(8, 4, 2), zero_shot=(7, 3), epochs=2)
    fitted = _fit(few_digits, recipe, tmp_path)
    assert fitted.artifacts["nested"] == "nested.pth" and fitted.details["head_rescaled"]
    loaded = read_nested(tmp_path / "nested.pth", _backbone())
    found = fitted.predict(few_digits)
    assert set(found) == {"8w8a", "4w4a", "2w2a", "7w7a", "3w3a"}
    for precision, classes in found.items():
        set_precision(loaded, precision)
        with torch.no_grad():
            assert loaded(see(few_digits, center(recipe))).argmax(1).equal(classes)


def test_any_precision_learns_and_says_why_it_is_not_stored(few_digits, tmp_path):
    recipe = _recipe("any-precision", policy="any-precision", epochs=20, lr=0.2)
    fitted = _fit(few_digits, recipe, tmp_path)
    assert "nested" not in fitted.artifacts
    assert fitted.details["nested"].startswith("not stored: codes of policy any-precision")
    rows = [json.loads(r) for r in (tmp_path / "parts/any-precision/metrics.jsonl").open()]
    assert rows[-1]["precisions"]["2w2a"]["teachers"] == {"8w8a": 1.0}
    first, *_, last = (row["precisions"]["8w8a"]["loss"] for row in rows)
    assert last < 0.8 * first  # 0.3 of it on one machine


def test_clips_have_their_own_start_rate_and_decay(few_digits, tmp_path, monkeypatch):
    seen = {}

    def run(self, workspace, state):
        seen["groups"] = self.optimizer.param_groups
        seen["network"] = self.network
        workspace.save(epoch=1, network=self.network.state_dict(), loss=0.0)
        return 0.0

    monkeypatch.setattr("lowbit.transfer.protocols.adaptive.Training.run", run)
    section = {"alpha": 3.0, "alpha_lr": 0.01, "alpha_weight_decay": 5e-4}
    _fit(few_digits, _recipe(section=section, weight_decay=1e-3), tmp_path)
    groups = {group.pop("role"): group for group in seen["groups"]}
    clips = groups.pop("scale")
    assert all((g["lr"], g["weight_decay"]) == (0.02, 1e-3) for g in groups.values())
    assert (clips["lr"], clips["weight_decay"]) == (0.01, 5e-4)
    assert all(p.item() == 3.0 for p in clips["params"])
    # 2 blocks x (2 convolutions) and one shortcut, two bit-widths each; the classifier's has one
    assert len(clips["params"]) == 2 * 5 + 1


def test_a_finished_training_is_not_done_again(few_digits, tmp_path, monkeypatch):
    recipe = _recipe(fp_start={"epochs": 1}, epochs=1)
    first = _fit(few_digits, recipe, tmp_path)
    nested = (tmp_path / "nested.pth").read_bytes()

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("lowbit.transfer.finetuning.training.Training._step", never)
    again = _fit(few_digits, recipe, tmp_path)
    assert again.details == first.details and first.details["start"]["kind"] == "fp-start"
    one, other = (f.predict(few_digits) for f in (first, again))
    assert all(one[precision].equal(other[precision]) for precision in map(str, recipe.precisions))
    assert (tmp_path / "nested.pth").read_bytes() == nested


def test_half_precision_passes_learn_as_well(few_digits, tmp_path):
    _fit(few_digits, _recipe(amp="bf16"), tmp_path)
    rows = [json.loads(r) for r in (tmp_path / "parts/coquant/metrics.jsonl").open()]
    # 7 % less; another instruction set moves it by 0.001 %
    assert rows[-1]["loss"]["train"] < rows[0]["loss"]["train"]
    assert get_policy("coquant").weight.options == {"scheme": "modified"}


def test_a_network_without_blocks_says_what_to_set(tiny_net, few_digits, tmp_path):
    with pytest.raises(ValueError, match=r"no residual block.*Set swap_probability to 1"):
        _fit(few_digits, _recipe(), tmp_path, backbone=tiny_net())
    recipe = _recipe(section={"swap_probability": 1.0}, epochs=1)
    fitted = _fit(few_digits, recipe, tmp_path / "without", backbone=tiny_net())
    classes = fitted.predict(few_digits)
    assert F.one_hot(classes["2w2a"], 10).sum() == 200
