"""Results of recipes that differ are never one row, and results that differ in nothing else are."""

import pytest

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.statistics.comparison import compare
from tests.benchmark.result_folders import make_result, write


def recipe(seed=0, **fields):
    return {
        "seed": seed,
        "lr": 0.3,
        "epochs": 4,
        "augmentation": {"flip": True, "scale": 0.2},
    } | fields


def names(runs):
    return sorted(set(load_frame(runs)["checkpoint"]))


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ({"lr": 0.003}, ["mine [lr 0.003]", "mine [lr 0.3]"]),
        (
            {"augmentation": {"flip": True, "scale": 0.5}},
            ["[augmentation.scale 0.2]", "[augmentation.scale 0.5]"],
        ),
        ({"augmentation": None}, ["[augmentation null]", '[augmentation {"flip": true']),
        ({"lr": 0.1, "epochs": 8}, ["[lr 0.1, epochs 8]", "[lr 0.3, epochs 4]"]),
        (
            {"seed": 1, "lr": 0.003},
            ["mine [lr 0.003]", "mine [lr 0.3]"],
        ),  # no second seed of the first
    ],
)
def test_an_edited_recipe_is_a_row_of_its_own(edited, expected, tmp_path):
    write(tmp_path, "a" * 12, recipe=recipe(), values={"FP": 90.0, "4w4a": 80.0})
    write(tmp_path, "b" * 12, recipe=recipe(**edited), values={"FP": 70.0, "4w4a": 60.0})
    found = names(tmp_path)
    assert len(found) == 2 and all(part in name for part, name in zip(expected, found, strict=True))
    folded = fold_seeds(normalize(load_frame(tmp_path)))
    assert sorted(folded["value"]) == [60.0, 70.0, 80.0, 90.0]
    assert set(folded["n_jobs"]) == {1}


@pytest.mark.parametrize(
    "same",
    [
        {"seed": 1},
        {"precisions": ["4w4a"]},
        {"device": "cuda", "num_workers": 4},  # cosmetic
        {"metrics": ["top1"], "architecture": "resnet10_slim"},
        {"came_later": 3},  # a field that the other version had not
    ],
)
def test_what_a_row_may_have_several_of_is_no_variant(same, tmp_path):
    write(tmp_path, "a" * 12, recipe=recipe())
    write(tmp_path, "b" * 12, recipe=recipe(**same))
    assert names(tmp_path) == ["mine"]


def test_other_rows_keep_their_names(tmp_path):
    write(tmp_path, "a" * 12, recipe=recipe())
    write(tmp_path, "b" * 12, recipe=recipe(lr=0.003))
    write(tmp_path, "c" * 12, recipe=recipe(lr=1.0), name="theirs")
    write(tmp_path, "d" * 12, recipe=recipe(lr=1.0), dataset="pets")
    assert names(tmp_path) == ["mine", "mine [lr 0.003]", "mine [lr 0.3]", "theirs"]


def test_recipes_alike_in_what_is_shown_are_told_by_a_hash(tmp_path):
    fields = dict.fromkeys(("batch_size", "gamma", "momentum", "weight_decay"), 1)
    for job, value in (("a", 1), ("b", 2)):
        other = fields | {"weight_decay": value}
        write(tmp_path, job * 12, recipe=recipe(**other))
    write(tmp_path, "c" * 12, recipe=recipe(**dict.fromkeys(fields, 3)))
    found = names(tmp_path)
    assert len(found) == 3 and "weight_decay" not in "".join(found)
    assert sum(", 1 more, recipe " in name for name in found) == 2


def start(job_id):
    return {
        "checkpoint": {"path": "a.pth", "sha256": "mine" * 8, "job_id": None},
        "detector": {"path": "d.pth", "sha256": "d" * 64, "job_id": job_id},
    }


def test_jobs_that_started_from_the_output_of_an_edited_recipe_are_variants(tmp_path):
    for seed, (first, second) in enumerate((("1", "3"), ("2", "4"))):
        write(tmp_path, first * 12, recipe=recipe(seed), identity={"training": "fp"})
        write(tmp_path, second * 12, recipe=recipe(seed), inputs=start(first * 12))
    assert names(tmp_path) == ["mine"]  # each seed has a detector of its own
    write(tmp_path, "5" * 12, recipe=recipe(lr=0.003), identity={"training": "fp"})
    write(tmp_path, "6" * 12, recipe=recipe(), inputs=start("5" * 12))
    assert "mine [start's lr 0.003]" in names(tmp_path)


@pytest.mark.parametrize(("precision", "split"), [("4w4a", True), ("2w2a", False)])
def test_configurations_are_variants_if_they_are_of_one_precision(precision, split, tmp_path):
    same = make_result("0" * 12).identity
    for job, bits, sha in (("a", "4w4a", "1" * 64), ("b", precision, "2" * 64)):
        identity = same | {"config_sha256": sha}
        write(tmp_path, job * 12, recipe=recipe(), identity=identity, values={bits: 50.0})
    assert (len(names(tmp_path)) == 2) is split


def test_variants_are_compared_by_their_names_only(tmp_path):
    for job, lr in (("a", 0.3), ("b", 0.003)):
        write(tmp_path, job * 12, recipe=recipe(lr=lr))
    write(tmp_path, "c" * 12, recipe=recipe(), name="theirs")
    frame = normalize(load_frame(tmp_path))
    with pytest.raises(
        ValueError, match=r"no checkpoint 'mine' has results; nothing was compared.*lr 0"
    ):
        compare(frame, "mine", "theirs")
    assert compare(frame, "mine [lr 0.3]", "theirs")


def _pretrained(runs, job_id, seed, **fields):
    checkpoint = {"name": f"SSQL seed {seed}", "pretraining": "SSQL", "pretrain_seed": seed}
    identity = {"task": "pretrain", "dataset": "digits"}
    write(
        runs, job_id, stage="pretrain", recipe=recipe(seed, **fields), inputs={},
        checkpoint=checkpoint, identity=identity,
    )  # fmt: skip
    made = {"checkpoint": {"path": "a.pth", "sha256": job_id, "job_id": job_id}}
    write(runs, f"e{job_id[1:]}", recipe=recipe(), inputs=made, checkpoint=checkpoint)


def test_pretrainings_by_an_edited_recipe_are_another_method(tmp_path):
    for seed in (0, 1):
        _pretrained(tmp_path, f"{seed:012x}", seed)
    frame = load_frame(tmp_path)
    assert set(frame["pretraining"]) == {"SSQL"}
    assert set(frame["checkpoint"]) == {"SSQL seed 0", "SSQL seed 1"}
    for seed in (0, 1):
        _pretrained(tmp_path, f"{seed + 16:012x}", seed, epochs=8)
    scored = load_frame(tmp_path).query("task == 'classification'")
    methods = scored.groupby("pretraining")["checkpoint"].apply(lambda names: sorted(set(names)))
    assert methods.to_dict() == {
        f"SSQL [epochs {n}]": [f"SSQL seed {seed} [epochs {n}]" for seed in (0, 1)] for n in (4, 8)
    }
