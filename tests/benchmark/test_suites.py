"""The suites in configs/suites: what they say is what they plan."""

from collections import Counter
from pathlib import Path

import pytest

from benchmark.messages import RecipeError
from benchmark.reference import reported_rows
from benchmark.sweep import plan

SUITES = Path(__file__).resolve().parents[2] / "configs" / "suites"
SETS = ("cifar10", "cifar100", "flowers102", "food101", "pets", "dtd", "caltech101")


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """No image set is there, and the checkpoint is a file of that name."""
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path / "empty"))
    (tmp_path / "my.pth").write_bytes(b"weights")
    return [f"checkpoint={tmp_path / 'my.pth'}", "name=my-ssl", "architecture=resnet18"]


@pytest.mark.parametrize("suite", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_suite_plans_with_a_checkpoint_of_the_users(suite, no_data):
    found = plan(suite, no_data)
    mine = [job for job in found.jobs.values() if job.label.checkpoint == "my-ssl"]
    assert mine and all(job.problem is None for job in mine), [job.problem for job in mine]
    assert found.name == suite.stem


def test_transfer_is_seven_sets_two_protocols_five_precisions_three_seeds(no_data):
    found = plan(SUITES / "transfer.yaml", no_data)
    jobs = Counter(
        (job.recipe["dataset"], job.recipe["protocol"], job.recipe["seed"], job.precisions)
        for job in found.jobs.values()
    )
    assert jobs == Counter(
        (name, protocol, seed, ("FP", "8w8a", "5w5a", "4w4a", "3w3a"))
        for name in SETS
        for protocol in ("linear", "finetune")
        for seed in (0, 1, 2)
    )
    for job in found.jobs.values():
        assert job.recipe["image_size"] == 224
        assert f"prepare {job.recipe['dataset']} " in job.missing
    shown = reported_rows(found.reported)
    assert set(shown[shown["paper"] == "SSQL"]["table"]) == {"Table 11"}
    assert set(shown[shown["paper"] == "CQ"]["table"]) == {f"Table {i}" for i in range(1, 10)}


def test_transfer_without_a_checkpoint_says_what_to_add():
    with pytest.raises(RecipeError, match="checkpoint=FILE on the command line adds one"):
        plan(SUITES / "transfer.yaml")


def test_quick_needs_no_data(no_data):
    found = plan(SUITES / "quick.yaml", no_data)
    assert all(job.missing is None and job.problem is None for job in found.jobs.values())
    assert {job.recipe["dataset"] for job in found.jobs.values()} == {"digits"}
    protocols = {job.recipe["protocol"] for job in found.jobs.values() if job.stage == "transfer"}
    assert {"linear", "finetune"} <= protocols


def _recipes(suite, monkeypatch, tmp_path):
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path / "empty"))
    jobs = plan(SUITES / f"{suite}.yaml").jobs.values()
    return [job for job in jobs if job.stage == "transfer"]


def test_small_transition_rates_compare_four_optimizers_from_one_start(monkeypatch, tmp_path):
    jobs = _recipes("tr_small", monkeypatch, tmp_path)
    compared = Counter((job.recipe["optimizer"], job.recipe["seed"]) for job in jobs)
    assert compared == Counter(
        (name, seed) for name in ("sgd", "sgdt", "adam", "adamt") for seed in range(3)
    )
    starts = {(str(job.recipe["fp_start"]), *map(str, job.inputs.values())) for job in jobs}
    assert len(starts) == 1


def test_small_adaptive_bit_widths_have_their_reference(monkeypatch, tmp_path):
    jobs = _recipes("coquant_small", monkeypatch, tmp_path)
    methods = Counter(job.recipe["adaptive"]["method"] for job in jobs)
    assert methods == dict.fromkeys(("coquant", "adabits", "switchable-bn", "individual"), 1)
    assert {job.precisions for job in jobs} == {tuple(f"{b}w{b}a" for b in (8, 6, 4, 2, 7, 5, 3))}


def test_transition_rates_on_cifar_have_every_optimizer_and_its_t_variant(monkeypatch, tmp_path):
    jobs = _recipes("tr_cifar", monkeypatch, tmp_path)
    names = {job.recipe["optimizer"] for job in jobs}
    plain = {"sgd", "adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad"}  # Table S5
    assert names == plain | {f"{name}t" for name in plain}
    assert len(jobs) == 30
    decays = {job.recipe["weight_decay"] for job in jobs if "adamw" in job.recipe["optimizer"]}
    assert decays == {1e-2}  # SPEC C.5
