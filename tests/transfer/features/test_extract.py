"""Features of a frozen backbone: nothing moves, nothing depends on the chunks, weights have b bits."""

import copy
import json
import os

import pytest
import torch

from lowbit.data import Center, Crop
from lowbit.quant import (
    FP,
    Precision,
    calibrate,
    get_policy,
    quantize,
    quantized_layers,
    set_precision,
)
from lowbit.quant.integer.frozen_forward import ARITHMETIC, FrozenForward
from lowbit.training.job_state import Workspace
from lowbit.transfer import Recipe
from lowbit.transfer.features.extract import Features, extract, feature_batches

PLAIN = Center(size=32, resize=32)


def _recipe(**fields):
    return Recipe(checkpoint="b.pth", eval_batch_size=fields.pop("batch_size", 64), **fields)


@pytest.fixture
def quantized(tiny_net, few_digits, see):
    net = quantize(tiny_net(), get_policy("ssql"))
    calibrate(net, [see(few_digits, places=torch.arange(64))])
    return net


def test_nothing_of_a_frozen_backbone_changes(quantized, few_digits):
    before = {k: v.clone() for k, v in quantized.state_dict().items()}
    for precision in ("FP", "4w4a"):
        extract(quantized, few_digits, precision, view=PLAIN, recipe=_recipe())
    after = quantized.state_dict()
    assert before.keys() == after.keys()
    assert all(before[k].equal(after[k]) for k in before)


def test_a_backbone_in_train_mode_is_not_frozen(quantized, few_digits):
    with pytest.raises(AssertionError, match="eval mode"):
        extract(quantized.train(), few_digits, "FP", view=PLAIN, recipe=_recipe())


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_features_do_not_depend_on_the_chunks_and_each_image_is_seen_once(
    quantized, few_digits, see, batch_size
):
    seen = []
    quantized.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    recipe = _recipe(batch_size=batch_size)
    found = extract(quantized, few_digits, "4w4a", view=PLAIN, recipe=recipe)
    assert sum(seen) == 200 and max(seen) <= batch_size
    with torch.no_grad():
        wanted = quantized(see(few_digits))
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "view", [PLAIN, Crop(size=32, scale=(0.8, 1.0), ratio=(0.75, 1.33), flip=0.5, seed=4, k=0)]
)
def test_features_from_an_image_on_are_those_of_all_images(quantized, few_digits, view):
    asked = FrozenForward(quantized), few_digits, view, [FP, Precision(4, 4)]
    batches = {"batch_size": 32, "workers": 0}
    whole = zip(*feature_batches(*asked, **batches), strict=True)
    rest = zip(*feature_batches(*asked, start=96, **batches), strict=True)
    for all_, some in zip(whole, rest, strict=True):
        assert torch.cat(some).equal(torch.cat(all_)[96:])


def test_each_precision_gives_its_own_features_from_the_same_views(quantized, few_digits):
    view = Crop(size=32, scale=(0.8, 1.0), ratio=(0.75, 1.33), flip=0.5, seed=4, k=0)
    features = [
        extract(quantized, few_digits, precision, view=view, recipe=_recipe())
        for precision in ("FP", "3w3a", "FP")
    ]
    assert features[0].equal(features[2])
    assert not torch.allclose(features[0], features[1], atol=1e-2)


def _cached(net, folder, calibration=None, **fields):
    recipe = _recipe(cache_dir=str(folder), **fields)
    workspace = Workspace(folder, key={})
    return Features(net, calibration or {"images": 64}, recipe=recipe, workspace=workspace)


def test_features_from_a_file_are_those_computed_bit_for_bit(quantized, few_digits, tmp_path):
    view = Crop(size=32, scale=(0.8, 1.0), ratio=(0.75, 1.33), flip=0.5, seed=4, k=0)
    wanted = extract(quantized, few_digits, "3w3a", view=view, recipe=_recipe())
    first = _cached(quantized, tmp_path)(few_digits, "3w3a", view)
    runs = []
    quantized.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    again = _cached(quantized, tmp_path)(few_digits, "3w3a", view)  # as another job would
    assert first.equal(wanted) and again.equal(wanted)
    assert not runs
    again.zero_()  # a reader's own business
    assert _cached(quantized, tmp_path)(few_digits, "3w3a", view).equal(wanted)


def test_nothing_is_served_under_another_key(quantized, few_digits, tmp_path, monkeypatch):
    runs = []
    quantized.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    crops = [
        Crop(size=32, scale=(0.8, 1.0), ratio=(0.75, 1.33), flip=0.5, seed=seed, k=k)
        for seed, k in ((0, 0), (0, 1), (1, 0))
    ]
    other = copy.copy(few_digits)
    other.split_sha256 = "0" * 64
    held_out, renamed, reordered = (copy.copy(few_digits) for _ in range(3))
    held_out.split, renamed.name, reordered.ids = "val", "cifar10", few_digits.ids.flip(0)

    def computes(images=few_digits, precision="4w4a", view=PLAIN, **job):
        before = len(runs)
        _cached(quantized, tmp_path, **job)(images, precision, view)
        return len(runs) > before

    assert computes() and not computes()
    assert all(computes(view=view) for view in crops)
    assert computes(view=Center(size=32, resize=36))
    assert computes(view=Center(size=32, resize=32, interpolation="bilinear"))
    assert all(computes(images) for images in (other, held_out, renamed, reordered))
    assert not computes(precision="5w5a")  # computed with the recipe's other precisions
    assert computes(precision="6w6a")
    assert computes(policy={"base": "ssql", "first": 4})
    assert computes(calibration={"images": 128})
    assert computes(batch_size=50)
    monkeypatch.setattr(
        "lowbit.transfer.features.extract._device_name", lambda device: "another GPU"
    )
    assert computes()
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    assert computes()
    monkeypatch.undo()
    assert not computes()
    with torch.no_grad():
        quantized.body[0].weight[0, 0, 0, 0] += 1e-6
    assert computes()
    quantizer = next(m for m in quantized.modules() if hasattr(m, "q_max"))
    quantizer.q_max += 1e-6  # a calibrated range
    assert computes()


def test_a_file_that_was_not_finished_is_not_there(quantized, few_digits, tmp_path, monkeypatch):
    def stops(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lowbit.common.atomic_file.os.replace", stops)
        with pytest.raises(KeyboardInterrupt):
            _cached(quantized, tmp_path)(few_digits, "FP")
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".part"}
    wanted = extract(quantized, few_digits, "FP", view=PLAIN, recipe=_recipe())
    assert _cached(quantized, tmp_path)(few_digits, "FP").equal(wanted)


@pytest.mark.parametrize("precision", ["8w8a", "5w5a", "4w4a", "3w3a", "2w4a"])
def test_a_weight_channel_has_at_most_2_to_the_b_values(quantized, precision):
    # SPEC A.14: the stem keeps 8 bits at every precision, all other layers have the target's.
    bits = Precision.parse(precision).weight_bits
    set_precision(quantized, Precision.parse(precision))
    layers = list(quantized_layers(quantized).values())
    counts = []
    for layer in layers:
        weight = layer.quantized_weight().detach().flatten(1)
        counts.append(max(len(channel.unique()) for channel in weight))
    assert len(layers) == 3
    assert counts[0] <= 2**8
    assert all(count <= 2**bits for count in counts[1:])
    if bits <= 4:  # few enough levels for 72 and 108 weights a channel to need most of them
        assert all(count > 2 ** (bits - 1) for count in counts[1:])


def test_the_features_not_read_for_longest_give_way_and_a_mapped_set_stays(
    quantized, few_digits, tmp_path, monkeypatch
):
    size = 200 * quantized.num_features * 4  # bytes
    monkeypatch.setenv("LOWBIT_CACHE_GB", str(2.5 * size / 1e9))  # room for two
    features = _cached(quantized, tmp_path, precisions=("2w2a",))  # each of those below alone
    first = features(few_digits, "FP")
    kept = first.clone()
    for age, file in enumerate(sorted(tmp_path.glob("*.npy"))):
        os.utime(file, (age, age))
    features(few_digits, "5w5a")
    features(few_digits, "4w4a")
    files = [file.suffix for file in tmp_path.iterdir() if file.suffix != ".lock"]
    assert sorted(files) == [".json", ".json", ".npy", ".npy"]
    assert first.equal(kept)  # its file is gone, what is mapped is not
    assert features(few_digits, "FP").equal(kept)  # and it is computed anew


def test_a_bound_that_is_no_number_is_refused_before_anything_is_computed(
    quantized, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOWBIT_CACHE_GB", "lots")
    with pytest.raises(ValueError, match="no features were computed"):
        _cached(quantized, tmp_path)


def test_features_of_a_layer_passed_by_are_not_returned_nor_kept(
    quantized, few_digits, pass_by, tmp_path
):
    recipe = _recipe(cache_dir=str(tmp_path), precisions=("FP",))
    workspace = Workspace(tmp_path, key={})
    features = Features(pass_by(quantized), {}, recipe=recipe, workspace=workspace)
    full = Precision.parse("FP")
    assert len(features(few_digits, full, PLAIN)) == 200
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^1 of 6 layers .* passed by \(body\.3\)"):
            features(few_digits, Precision(4, 4), PLAIN)


def test_the_recipes_precisions_are_computed_in_one_pass_over_the_images(
    quantized, few_digits, tmp_path, monkeypatch
):
    passes = []
    original = type(few_digits).batches
    monkeypatch.setattr(
        type(few_digits), "batches", lambda *a, **k: passes.append(1) or original(*a, **k)
    )
    precisions = ("FP", "4w4a", "3w3a")
    features = _cached(quantized, tmp_path, precisions=precisions)
    found = [features(few_digits, p) for p in precisions]
    assert len(passes) == 1
    alone = _cached(quantized, tmp_path / "alone", precisions=("2w2a",))
    assert all(x.equal(alone(few_digits, p)) for p, x in zip(precisions, found, strict=True))
    assert len(passes) == 4


def test_full_precision_is_the_network_bit_for_bit(quantized, few_digits, see):
    found = extract(quantized, few_digits, "FP", view=PLAIN, recipe=_recipe())
    set_precision(quantized, FP)
    with torch.no_grad():
        batches = see(few_digits).split(64)
        assert found.equal(torch.cat([quantized(x) for x in batches]))


def test_features_say_which_arithmetic_made_them(quantized, few_digits, tmp_path, monkeypatch):
    where = "lowbit.transfer.features.extract.computes_on_integers"
    kept = {}
    for integers in (True, False):
        monkeypatch.setattr(where, lambda network, integers=integers: integers)
        _cached(quantized, tmp_path, precisions=("FP", "4w4a"))(few_digits, "4w4a")
        facts = [json.loads(p.read_text())["facts"] for p in tmp_path.glob("*.json")]
        kept[integers] = {(f["precision"], f.get("arithmetic")) for f in facts}
    # Full precision is the same either way, and its features serve both.
    assert kept[True] == {("4w4a", ARITHMETIC), ("FP", None)}
    assert kept[False] == kept[True] | {("4w4a", None)}
