"""The suites in configs/suites: what they say is what they plan."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from lowbit.benchmark.planning.job import File
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.published import reported_rows, select
from lowbit.benchmark.published.reproduction_targets import claimed_rows
from lowbit.benchmark.published.selection import matching, published_results
from lowbit.benchmark.published.tolerances import tables
from lowbit.benchmark.recipes.errors import RecipeError

SUITES = Path(__file__).resolve().parents[3] / "configs" / "suites"
SETS = ("cifar10", "cifar100", "flowers102", "food101", "pets", "dtd", "caltech101")


DETECTRON2 = ("detection", "detection_fpn", "ssql_figure9", "cq_imagenet", "tr_coco")
DETECTRON2 += ("cq_tables", "tr_tables", "paper")
PARTS = [
    "demo",
    "quick",
    "transfer",
    "cifar10_small",
    "tr_small",
    "coquant_small",
    "detection",
    "detection_fpn",
    "vit_ptq",
    "vit_ptq_small",
    "voc_folder",
    "voc_folder_yolov4",
]


@pytest.fixture(scope="module", autouse=True)
def no_data(tmp_path_factory):
    """No image set is there, and the checkpoint is a file of that name."""
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "my.pth").write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWBIT_DATA", str(folder / "empty"))
        patch.setenv("DETECTRON2_DATASETS", str(folder / "empty"))
        _plan.cache_clear()
        yield (f"checkpoint={folder / 'my.pth'}", "name=my-ssl", "architecture=resnet18")


@cache
def _plan(name, words=()):
    if name in DETECTRON2:
        pytest.importorskip("detectron2")
    return plan(SUITES / f"{name}.yaml", words)


@pytest.mark.parametrize("name", sorted(path.stem for path in SUITES.glob("*.yaml")))
def test_every_suite_plans_and_says_what_it_costs(name, no_data):
    found = _plan(name, no_data if name in PARTS else ())
    assert found.name == name
    assert found.jobs and not [job.problem for job in found.jobs.values() if job.problem]
    header = (SUITES / f"{name}.yaml").read_text().split("\nname:")[0]
    for word in ("# Run: ", "# Cost: ", "# Published: ", f"configs/suites/{name}.yaml"):
        assert word in header


@pytest.mark.parametrize("name", PARTS)
def test_a_checkpoint_of_the_users_is_scored(name, no_data):
    mine = [j for j in _plan(name, no_data).jobs.values() if j.label.checkpoint == "my-ssl"]
    assert mine and not any(job.published for job in mine)


def test_paper_is_every_suite_of_a_table():
    whole = set(_plan("paper").jobs)
    ssql = ("ssql_table11", "ssql_table12", "ssql_table13", "ssql_figure9")
    for name in (*ssql, "ssql_cifar", "ssql_imagenet"):
        assert set(_plan(name).jobs) < whole
    for name in ("cq_tables", "tr_tables", "coquant_tables"):
        assert set(_plan(name).jobs) < whole


@pytest.mark.parametrize("suite", sorted({table.suite for table in tables().values()}))
def test_every_number_of_a_table_has_a_job_or_a_reason(suite):
    jobs = _plan(suite).jobs.values()
    claimed = {
        tuple(row.values())
        for job in jobs
        if job.published
        for row in claimed_rows(job.published, job.precisions)
    }
    for table in tables().values():
        if table.suite == suite:
            where = {"paper": table.paper, "table": table.table}
            rows = matching(published_results(), where)
            without = {tuple(row.values()) for row in rows if table.why_without(row)}
            assert {tuple(row.values()) for row in rows} - without <= claimed
            assert not without & claimed


@pytest.mark.parametrize(
    ("suite", "value", "where", "facts"),
    [
        # one number of each kind of cell, and the recipe that has to give it
        (
            "ssql_table11",
            {"system": "SSQL", "dataset": "Pets", "protocol": "imagenet_pretrain>linear"},
            {"precision": "4w4a"},
            {"dataset": "pets", "protocol": "linear", "image_size": 224},
        ),
        (
            "ssql_table12",
            {"table": "Table 12", "system": "BYOL+SSQL"},
            {"precision": "2w4a"},
            {"dataset": "cifar10", "protocol": "linear", "train_on": "trainval"},
        ),
        (
            "cq_cifar100",
            {"table": "Table 7", "system": "CQ-B(6-16)", "protocol": "finetune_1pct"},
            {"precision": "4w4a", "architecture": "MobileNetV2"},
            {"protocol": "semi", "label_fraction": 0.01},
        ),
        (
            "tr_cifar",
            {"table": "Table S3", "dataset": "CIFAR-10", "architecture": "ReActNet-18"},
            {"precision": "1w1a", "system": "AdamT"},
            {"optimizer": "adamt", "schedule": "step", "gamma": 0.2, "milestones": [50, 100, 150]},
        ),
        (
            "tr_cifar",
            {"table": "Table S5", "system": "NAdamT"},
            {"precision": "2w2a"},
            {"optimizer": "nadamt", "dataset": "cifar100", "schedule": "cosine"},
        ),
        (
            "tr_imagenet",
            {"table": "Table S1", "system": "AdamT(lambda=2e-3)"},
            {"precision": "3w3a"},
            {"optimizer": "adamt", "policy": "interval"},
        ),
        (
            "coquant_large",
            {"table": "Table 5", "system": "DoReFa"},
            {"precision": "2w2a"},
            {"protocol": "adaptive", "epochs": 100, "metrics": ["mAP", "top1"]},
        ),
        (
            "tr_imagenet",
            {"table": "Table S1", "system": "Nagel et al.", "protocol": "qat"},
            {"precision": "4w4a"},
            {"optimizer": "sgd", "lr": 0.0033, "batch_size": 128, "epochs": 90},
        ),
        (
            "coquant_cifar10",
            {"table": "Table 4", "system": "CoQuant(B={8,4})"},
            {"precision": "2w2a"},
            {"protocol": "adaptive", "epochs": 350},
        ),
    ],
)
def test_a_number_is_set_against_the_right_experiment(suite, value, where, facts):
    (row,) = select({**value, **where})
    found = [
        job
        for job in _plan(suite).jobs.values()
        if job.published and row in claimed_rows(job.published, job.precisions)
    ]
    assert found
    for job in found:
        assert {name: job.recipe[name] for name in facts} == facts
    assert len({job.label.checkpoint for job in found}) == 1


def test_transfer_is_seven_sets_two_protocols_five_precisions_three_seeds(no_data):
    found = _plan("transfer", no_data)
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
    found = _plan("quick", no_data)
    assert all(job.missing is None and job.problem is None for job in found.jobs.values())
    assert {job.recipe["dataset"] for job in found.jobs.values()} == {"digits"}
    protocols = {job.recipe["protocol"] for job in found.jobs.values() if job.stage == "transfer"}
    assert {"linear", "finetune"} <= protocols


def _recipes(suite):
    return [job for job in _plan(suite).jobs.values() if job.stage == "transfer"]


def test_small_transition_rates_compare_four_optimizers_from_one_start():
    jobs = _recipes("tr_small")
    compared = Counter((job.recipe["optimizer"], job.recipe["seed"]) for job in jobs)
    assert compared == Counter(
        (name, seed) for name in ("sgd", "sgdt", "adam", "adamt") for seed in range(3)
    )
    starts = {(str(job.recipe["fp_start"]), *map(str, job.inputs.values())) for job in jobs}
    assert len(starts) == 1


def test_pocket_transition_rates_differ_in_optimizer_and_controller_alone():
    jobs = _recipes("pocket_tr")
    differing = {"name", "optimizer", "lr", "weight_decay", "transition", "seed"}
    same = [{k: v for k, v in job.recipe.items() if k not in differing} for job in jobs]
    assert len(jobs) == 30 and all(recipe == same[0] for recipe in same)
    pairs = {
        (job.recipe["optimizer"].removesuffix("t"), job.recipe["lr"], job.recipe["weight_decay"])
        for job in jobs
    }
    assert pairs == {("sgd", 0.1, 1e-4), ("adam", 1e-3, 1e-4), ("adamw", 1e-3, 1e-2)}
    sections = [job.recipe["transition"] for job in jobs if job.recipe["seed"] == 0]
    changes = [
        {k: s[k] for k in ("lambda_", "controller", "highest") if k in s} for s in sections if s
    ]
    paper = {"lambda_": 5e-3, "controller": "eq11"}
    assert changes == [
        *[paper] * 3,
        paper | {"lambda_": "natural"},
        paper | {"controller": "scaled"},
        paper | {"highest": 1.0},
        {"lambda_": "natural", "controller": "scaled", "highest": 1.0},
    ]


def test_small_adaptive_bit_widths_have_their_reference():
    jobs = _recipes("coquant_small")
    methods = Counter(job.recipe["adaptive"]["method"] for job in jobs)
    assert methods == dict.fromkeys(("coquant", "adabits", "switchable-bn", "individual"), 1)
    assert {job.precisions for job in jobs} == {tuple(f"{b}w{b}a" for b in (8, 6, 4, 2, 7, 5, 3))}


def test_transition_rates_on_cifar_have_every_optimizer_and_its_t_variant():
    jobs = _recipes("tr_cifar")
    names = {job.recipe["optimizer"] for job in jobs}
    plain = {"sgd", "adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad"}  # Table S5
    assert names == plain | {f"{name}t" for name in plain}
    seeds = Counter(job.recipe["seed"] for job in jobs)
    assert seeds == {0: 75, 1: 4, 2: 4, 3: 4, 4: 4}  # Table S6 has five
    decays = {job.recipe["weight_decay"] for job in jobs if "adamw" in job.recipe["optimizer"]}
    assert decays == {1e-2}  # SPEC C.5


def test_a_shipped_suite_looks_for_weights_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = plan(SUITES / "coquant_large.yaml").jobs.values()
    files = {f.path for job in jobs for f in job.inputs.values() if isinstance(f, File)}
    names = ("resnet18-f37072fd.pth", "resnet50-0676ba61.pth")
    assert files == {tmp_path / "checkpoints" / name for name in names}
