"""A whole job on digits: schema, leak guard, determinism, and what goes wrong."""

import json

import pytest
import torch
from PIL import Image

from lowbit.backbones import create_backbone, save_backbone
from lowbit.data import load, open_images
from lowbit.transfer import Recipe, identity, missing_data, run
from lowbit.transfer.scoring import guarded_splits
from lowbit.transfer.scoring.guarded_splits import GuardedSplits
from tests.small_digits import COUNTS
from tests.small_digits import NAME as SMALL_DIGITS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A backbone file with random weights, as a pretraining of no epochs leaves it."""
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    backbone = create_backbone("resnet10_slim")
    save_backbone(path, backbone, {"method": "untrained", "data": "digits"})
    return path


def _recipe(checkpoint, **fields):
    settings = {"epochs": 2, "lr": 0.5, "precisions": ("FP", "4w4a"), "image_size": 16}
    return Recipe(checkpoint=str(checkpoint), **{**settings, **fields})


@pytest.fixture(scope="module", params=["linear", "finetune"])
def job(request, checkpoint, tmp_path_factory):
    """A finished job of each protocol: (recipe, result, folder)."""
    settings = {"linear": {"lr": 1.0, "epochs": 20}, "finetune": {"lr": 0.05}}[request.param]
    recipe = _recipe(checkpoint, protocol=request.param, **settings)
    folder = tmp_path_factory.mktemp(request.param)
    return recipe, run(recipe, folder), folder


def test_measurements_have_every_precision_on_test_and_val(job):
    _, result, _ = job
    rows = result["measurements"]
    assert [(r["split"], r["precision"], r["n"]) for r in rows] == [
        ("test", "FP", 540),
        ("test", "4w4a", 540),
        ("val", "FP", 180),
        ("val", "4w4a", 180),
    ]
    for row in rows:
        assert (row["metric"], row["unit"]) == ("top1", "%")
        right = row["value"] * row["n"] / 100
        assert right == pytest.approx(round(right), abs=1e-9)  # a share of n whole images
    fp = next(r["value"] for r in rows if r["split"] == "val")
    assert fp > 25  # chance is 10 %: something was learned


def test_result_is_plain_json_and_says_where_it_comes_from(job):
    recipe, result, folder = job
    assert json.loads(json.dumps(result)) == result
    assert result["checkpoint"]["architecture"] == "resnet10_slim"
    assert result["checkpoint"]["method"] == "untrained"
    assert len(result["checkpoint"]["sha256"]) == 64
    assert list(result["costs"]) == list(map(str, recipe.precisions))
    costs = [
        result["costs"][precision]["bit_operations"] for precision in map(str, recipe.precisions)
    ]
    assert costs == sorted(costs, reverse=True)  # from FP down
    assert all((folder / path).is_file() for path in result["artifacts"].values())
    assert not (folder / "result.json").exists()
    details = result["details"]
    assert details["test_reads"] == 1 and details["trained_on"] == "train"
    assert details["load_report"]["matched"] == details["load_report"]["total"]
    counts = torch.bincount(load("digits", "test").labels).tolist()
    assert details["accuracies"]["test"]["FP"]["counts"] == counts
    curve = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in curve] == list(range(recipe.epochs))


def test_two_runs_are_bit_equal(job, tmp_path):
    recipe, result, _ = job
    assert run(recipe, tmp_path) == result


def test_test_is_loaded_once_and_after_everything_is_trained(checkpoint, tmp_path, monkeypatch):
    loaded = []

    def recording(name, split, *, root=None):
        trained = (tmp_path / "metrics.jsonl").exists() and len(
            (tmp_path / "metrics.jsonl").read_text().splitlines()
        )
        loaded.append((split, trained))
        return open_images(name, split, root=root)

    monkeypatch.setattr(guarded_splits, "open_images", recording)
    run(_recipe(checkpoint, dataset=SMALL_DIGITS), tmp_path)
    assert loaded == [("train", False), ("val", False), ("test", 2)]


def test_a_second_read_of_test_is_a_bug():
    guarded = GuardedSplits("digits")
    guarded.open_test()
    with pytest.raises(AssertionError, match="once"):
        guarded.open_test()


def test_a_test_image_among_the_training_images_is_a_bug(monkeypatch):
    monkeypatch.setattr(
        guarded_splits,
        "open_images",
        lambda name, split, root=None: open_images(name, "train" if split == "test" else split),
    )
    with pytest.raises(AssertionError, match="trained or validated on"):
        GuardedSplits("digits").open_test()


def test_both_accuracies_are_measured_when_asked_for(checkpoint, tmp_path):
    metrics = ("top1", "mean_per_class")
    recipe = _recipe(checkpoint, dataset=SMALL_DIGITS, precisions=("FP",), metrics=metrics)
    result = run(recipe, tmp_path)
    test = {r["metric"]: r["value"] for r in result["measurements"] if r["split"] == "test"}
    said = result["details"]["accuracies"]["test"]["FP"]
    shares = [c / n for c, n in zip(said["correct"], said["counts"], strict=True)]
    assert test["mean_per_class"] == pytest.approx(100 * sum(shares) / 10)
    assert test["top1"] == pytest.approx(100 * sum(said["correct"]) / COUNTS["test"])


def test_training_on_everything_validates_nothing(checkpoint, tmp_path):
    result = run(_recipe(checkpoint, dataset=SMALL_DIGITS, train_on="trainval"), tmp_path)
    assert {row["split"] for row in result["measurements"]} == {"test"}
    assert result["details"]["images"] == {"trainval": COUNTS["train"] + COUNTS["val"]}
    assert result["details"]["trained_on"] == "trainval"


def test_a_missing_checkpoint_and_a_wrong_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        run(_recipe(tmp_path / "nowhere.pth"), tmp_path)
    wrong = tmp_path / "wrong.pth"
    torch.save({"conv.weight": torch.zeros(1, 3, 1, 1)}, wrong)
    with pytest.raises(ValueError, match="nothing was loaded"):
        run(_recipe(wrong, architecture="resnet10_slim"), tmp_path)


def test_a_folder_of_another_job_is_refused(checkpoint, tmp_path):
    fields = {"protocol": "finetune", "epochs": 1, "precisions": ("FP",)}
    run(_recipe(checkpoint, **fields), tmp_path)
    with pytest.raises(ValueError, match="another job, which differs in seed; nothing was trained"):
        run(_recipe(checkpoint, **fields, seed=1), tmp_path)


def test_a_device_that_is_not_there_is_said_so(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"cannot be used.*nothing was run"):
        run(_recipe(checkpoint, device="cuda:99"), tmp_path)


def test_the_global_generator_is_left_as_it_was(checkpoint, tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run(_recipe(checkpoint, precisions=("FP",)), tmp_path)
    assert torch.get_rng_state().equal(state)


def test_identity_needs_no_files():
    assert identity(_recipe("nowhere.pth"))["task"] == "classification"


def test_what_ships_with_a_library_is_never_missing():
    assert missing_data(_recipe("nowhere.pth", dataset="digits")) is None


def test_a_set_that_is_not_there_comes_with_the_command_that_gets_it(tmp_path):
    for dataset in ("cifar10", "flowers102", "folder:birds"):
        said = missing_data(_recipe("nowhere.pth", dataset=dataset, data_root=str(tmp_path)))
        assert dataset.removeprefix("folder:") in said.lower()
        assert said.count(f"lowbit-bench datasets prepare {dataset} ") == 1


def test_a_folder_that_is_there_is_not_missing(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "birds" / split / name
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (i * 20, len(split) * 9, ord(name))).save(
                    folder / f"{i}.png"
                )
    assert (
        missing_data(_recipe("nowhere.pth", dataset="folder:birds", data_root=str(tmp_path)))
        is None
    )


def test_low_bit_results_say_how_many_predictions_rounding_decides(job):
    _, result, _ = job
    found = result["details"]["rounding"]
    assert found["images"] == 512 and list(found["share"]) == ["4w4a"]
    images = found["share"]["4w4a"] * 512 / 100
    assert images == pytest.approx(round(images), abs=1e-9) and 0 <= images < 256
