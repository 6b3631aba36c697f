"""Results as rows: one a recipe, with the facts of its pretraining, from one folder or several."""

import subprocess
import sys

import pytest

from lowbit.benchmark.claims.load_rows import COSMETIC, load_rows
from lowbit.benchmark.recipes.stages import STAGES, get_stage
from lowbit.benchmark.results.result_file import RESULT
from tests.benchmark.claims.made_results import Runs
from tests.benchmark.result_folders import submit, write


def scored(rows):
    return [row for row in rows if row.facts["task"] != "pretrain"]


def test_a_row_has_the_facts_of_its_recipe_and_of_its_pretraining(tmp_path):
    runs = Runs(tmp_path)
    job = runs.pretrain("SSQL", 4, precision_set=[6, 16], augmentation={"flip": 0.5})
    adaptive = {"adaptive": {"bits": [8, 4], "method": "coquant"}, "device": "cpu"}
    runs.score("SSQL", job, None, {"4w4a": 90.0}, seed=7, **adaptive)
    (row,) = scored(load_rows([tmp_path]))
    assert row.has({"adaptive.bits": [8, 4], "method": "SSQL", "protocol": ["semi", "linear"]})
    assert row.has({"pretrain.precision_set": [6, 16], "pretrain.augmentation.flip": 0.5})
    assert not row.has({"adaptive.bits": [8, 2]}) and not row.has({"adaptive.alpha": 8})
    assert row.has({"transition.highest": None}) and not row.has({"adaptive.bits": None})
    assert not {"device", "seed", "pretrain.seed"} & row.facts.keys()
    assert set(row.values("top1", "4w4a", None)) == {(4, 7)}  # the seed of its pretraining's recipe
    assert row.pretraining == "20 epochs (320 steps) on digits" and row.length == "100 epochs"


@pytest.mark.parametrize(
    ("recipe", "details", "length"),
    [
        ({"batch_size": 64}, {"images": {"train": 129}}, "100 epochs (200 steps)"),  # 1 is left out
        ({"batch_size": 64}, {"images": {"train": 130}}, "100 epochs (300 steps)"),
        (
            {"batch_size": 64},
            {"images": {"train": 4500}, "labels": {"images": 50}},
            "100 epochs (100 steps)",
        ),
        ({"epochs": None}, {"images": {"train": 129}}, ""),
        ({"epochs": "many", "iterations": 1200}, {"images": None}, "1,200 iterations"),
        ({"batch_size": True}, {"images": {"train": 129}}, "100 epochs"),
    ],
)
def test_how_long_a_job_trained(recipe, details, length, tmp_path):
    runs = Runs(tmp_path)
    runs.score("SSQL", runs.pretrain("SSQL", 0), 0, {"FP": 90.0}, details=details, **recipe)
    (row,) = scored(load_rows([tmp_path]))
    assert row.length == length


def test_a_variation_of_a_policy_counts_as_that_policy(tmp_path):
    runs = Runs(tmp_path)
    job = runs.pretrain("SSQL", 0)
    varied = {"base": "lsq", "first": 8, "weight": {"kind": "LSQ", "options": {"numel": "layer"}}}
    runs.score("SSQL", job, 0, {"4w4a": 90.0}, policy=varied)
    (row,) = scored(load_rows([tmp_path]))
    assert row.has({"policy": "lsq", "policy.weight.options.numel": "layer"})


def test_what_changes_no_number_makes_no_row(tmp_path):
    runs = Runs(tmp_path)
    job = runs.pretrain("SSQL", 0)
    runs.score("SSQL", job, 0, {"4w4a": 90.0}, seed=0, device="cpu", cache_dir="a")
    runs.score("SSQL", job, 0, {"4w4a": 91.0}, seed=1, device="cuda", cache_dir="b")
    runs.score("SSQL", job, 0, {"4w4a": 70.0}, seed=1, lr=0.3)
    assert sorted(len(row.jobs) for row in scored(load_rows([tmp_path]))) == [1, 2]


def test_cosmetic_fields_are_those_of_the_stages():
    of_stages = set().union(*(get_stage(stage).Recipe.cosmetic for stage in STAGES[:3]))
    assert of_stages == COSMETIC


def test_folders_of_folders_and_several_are_read_each_job_once(tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        runs = Runs(tmp_path / name)
        runs._count = 16 * seed
        runs.score("SSQL", runs.pretrain("SSQL", seed), seed, {"4w4a": 90.0 + seed})
    for folders in ([tmp_path], [tmp_path / "one", tmp_path / "two", tmp_path / "one"]):
        (row,) = scored(load_rows(folders))
        found = row.values("top1", "4w4a", None)
        assert {unit: number.value for unit, number in found.items()} == {
            (0, 0): 90.0,
            (1, 0): 91.0,
        }


def test_submissions_and_failures_have_no_row(tmp_path):
    folder = submit(tmp_path, "theirs", {"c" * 12: "verified"})
    write(folder, "c" * 12, values={"4w4a": 99.0})
    write(tmp_path, "d" * 12, status="failed", reason="diverged", values={"4w4a": 1.0})
    write(tmp_path, "e" * 12, values={"4w4a": 90.0})
    (row,) = load_rows([tmp_path])
    assert [job.folders for job in row.jobs] == [(f"{tmp_path}/{'e' * 12}",)]


def test_a_wrong_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .* no claim was tried"):
        load_rows([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match=r"has no results .* no claim was tried"):
        load_rows([tmp_path])


def test_detectors_are_told_apart_by_their_optimizer(tmp_path):
    facts = {"task": "detection", "dataset": "digit-scenes", "protocol": "retinanet", "engine": "t"}
    trainings = {
        "tr": "sgd",
        "sgdt": "sgdt",
        "tr, adamw": "adamw",
        "lsq": "sgd",
        "sgdt, full": "sgdt",
    }
    for number, training in enumerate(trainings):
        identity = {**facts, "training": training, "policy": "tr", "split_sha256": "e5" * 32}
        write(tmp_path, f"{number:012x}", stage="detection", identity=identity, recipe={"seed": 0})
    found = {row.facts["training"]: row.facts["optimizer"] for row in load_rows([tmp_path])}
    assert found == trainings


def test_claims_are_tried_without_torch_pandas_and_scipy_stats(tmp_path):
    runs = Runs(tmp_path)
    runs.score("SSQL", runs.pretrain("SSQL", 0), 0, {"4w4a": 90.0})
    load_rows([tmp_path])  # writes the cache
    assert (tmp_path / "c00000000001" / RESULT).exists()
    code = (
        "import sys\n"
        "from lowbit.benchmark.claims.trials import try_claims\n"
        f"assert try_claims([{str(tmp_path)!r}])\n"
        "assert not {'torch', 'pandas', 'scipy.stats', 'scipy.optimize'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
