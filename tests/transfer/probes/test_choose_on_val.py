"""What is chosen, among what, on which images; and who is handed validation labels."""

import dataclasses

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.transfer import Recipe, run
from lowbit.transfer.probes.choose_on_val import choose_on
from lowbit.transfer.probes.sgd_probe import classify
from lowbit.transfer.recipe.protocol_registry import PROTOCOLS, get_protocol
from tests.small_digits import NAME as SMALL_DIGITS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Where jobs that score the frozen backbone keep its features for one another."""
    return {"cache_dir": str(tmp_path_factory.mktemp("features"))}


def _recipe(checkpoint, **fields):
    settings = {"dataset": SMALL_DIGITS, "precisions": ("FP", "3w3a"), "image_size": 16}
    return Recipe(checkpoint=str(checkpoint), **settings, **fields)


def test_the_best_on_val_is_kept_and_of_equals_the_first(few_digits):
    x = torch.eye(10)[few_digits.labels]  # features that give the class away
    eye, wrong = (torch.eye(10), torch.zeros(10)), (torch.eye(10).roll(1, 0), torch.zeros(10))
    heads = {"FP": [wrong, eye, eye], "2w2a": [wrong, wrong, eye]}
    kept, details = choose_on(
        few_digits, lambda images, precision: x, heads, setting="lr", values=(1.0, 2.0, 3.0)
    )
    assert kept == {"FP": heads["FP"][1], "2w2a": heads["2w2a"][2]}
    assert details["chosen"] == {
        "setting": "lr",
        "on": "train",  # what was passed says what it is
        "among": [1.0, 2.0, 3.0],
        "value": {"FP": 2.0, "2w2a": 3.0},
        "top1": {"FP": [0.0, 100.0, 100.0], "2w2a": [0.0, 0.0, 100.0]},
    }
    with pytest.raises(AssertionError, match="requires validation images"):
        choose_on(None, None, heads, setting="lr", values=(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("fields", "handed"),
    [
        ({"epochs": 1}, False),
        ({"epochs": 1, "lr": [0.5, 1.0]}, True),
        ({"protocol": "linear-exact"}, True),
        ({"protocol": "linear-exact", "l2_strengths": [0.1]}, False),
        ({"protocol": "knn"}, False),
        ({"protocol": "semi", "epochs": 1}, False),
        ({"protocol": "finetune", "epochs": 1}, False),
    ],
    ids=str,
)
def test_val_is_handed_only_to_a_job_that_has_to_choose(
    checkpoint, features, tmp_path, monkeypatch, fields, handed
):
    known = get_protocol(fields.get("protocol", "linear"))
    seen = []

    def recording(*arguments, **options):
        seen.append(options.get("val"))
        return known.fit(*arguments, **options)

    spied = dataclasses.replace(known, fit=recording)
    monkeypatch.setitem(PROTOCOLS._obj_map, known.name, spied)
    result = run(_recipe(checkpoint, **fields, **features), tmp_path)
    assert [images and images.split for images in seen] == ["val" if handed else None]
    assert ("chosen" in result["details"]) == handed
    if handed:
        assert result["details"]["chosen"]["on"] == "val"
    assert result["details"]["test_reads"] == 1


def test_a_chosen_rate_scores_as_if_it_were_the_only_one(checkpoint, features, tmp_path):
    results = []
    for lr in ([1e-9, 1.0], 1.0):  # nothing learned, and something
        folder = tmp_path / str(lr)
        folder.mkdir()
        results.append(run(_recipe(checkpoint, lr=lr, epochs=15, **features), folder))
    chosen, alone = results
    assert chosen["details"]["chosen"]["value"] == {"FP": 1.0, "3w3a": 1.0}
    for one, other in zip(chosen["measurements"], alone["measurements"], strict=True):
        # The same convex fit but for its rounding, which tips an image or two at most.
        assert abs(one["value"] - other["value"]) * one["n"] / 100 < 2.5


def test_the_exact_optimum_needs_no_seed_and_says_that_it_converged(checkpoint, features, tmp_path):
    results = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        recipe = _recipe(checkpoint, protocol="linear-exact", seed=seed, **features)
        results.append(run(recipe, folder))
    assert results[0]["measurements"] == results[1]["measurements"]
    solver = results[0]["details"]["solver"]
    for precision in ("FP", "3w3a"):
        assert all(solver[precision]["converged"])
        found = zip(solver[precision]["gradient_norm"], solver["tolerance"], strict=True)
        assert all(norm <= tolerance <= 1e-4 for norm, tolerance in found)


def test_jobs_share_features_without_a_trace_in_their_results(checkpoint, tmp_path, monkeypatch):
    private, shared, again, other_seed = (tmp_path / name for name in "abcd")
    for folder in (private, shared, again, other_seed):
        folder.mkdir()
    cache = {"cache_dir": str(tmp_path / "features")}
    wanted = run(_recipe(checkpoint, epochs=3), private)
    assert not (private / "features").exists()
    assert run(_recipe(checkpoint, epochs=3, **cache), shared) == wanted
    files = sorted((tmp_path / "features").iterdir())
    # File, facts and lock; precisions; train, val, test, and part of test in float64.
    assert len(files) == 3 * 2 * 4

    def never(*arguments, **options):
        raise AssertionError("the backbone runs again")

    monkeypatch.setattr("lowbit.transfer.features.extract.feature_batches", never)
    assert run(_recipe(checkpoint, epochs=3, **cache), again) == wanted
    for fields in ({"epochs": 3, "seed": 1}, {"protocol": "knn"}, {"protocol": "linear-exact"}):
        run(_recipe(checkpoint, **fields, **cache), other_seed)
    assert sorted((tmp_path / "features").iterdir()) == files


def test_classes_found_in_parts_are_those_found_at_once(monkeypatch):
    x, weight, bias = torch.randn(50, 4), torch.randn(3, 4), torch.randn(3)
    wanted = classify(x, weight, bias)
    monkeypatch.setattr("lowbit.transfer.probes.sgd_probe._ROWS", 7)
    assert classify(x, weight, bias).equal(wanted)
