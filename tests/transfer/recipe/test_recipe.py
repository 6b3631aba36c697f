"""The recipe: published defaults, refusals with three-part messages, and the job's identity."""

import json

import pytest
from pydantic import ValidationError

from lowbit.data import image_set, load
from lowbit.quant import get_policy
from lowbit.transfer import VERSION, Recipe, identity


def test_published_defaults_of_linear_and_finetune():
    linear = Recipe(checkpoint="b.pth")
    finetune = Recipe(checkpoint="b.pth", protocol="finetune")
    got = [(r.epochs, r.lr, r.milestones, r.weight_decay) for r in (linear, finetune)]
    assert got == [(100, 30.0, (60, 80), 0.0), (50, 1e-3, (30, 40), 1e-4)]  # SPEC A.8
    assert tuple(map(str, linear.precisions)) == ("FP", "8w8a", "5w5a", "4w4a", "3w3a")
    assert (linear.momentum, linear.gamma, linear.calibration_batches) == (0.9, 0.1, 4)


def test_milestones_follow_the_epochs_unless_given():
    assert Recipe(checkpoint="b.pth", epochs=10).milestones == (6, 8)
    assert Recipe(checkpoint="b.pth", epochs=1).milestones == ()
    assert Recipe(checkpoint="b.pth", epochs=10, milestones=[3]).milestones == (3,)
    assert Recipe(checkpoint="b.pth", protocol="finetune", warmup_fc={}).warmup_fc.milestones == (
        60,
        80,
    )


def test_rate_of_each_epoch_step_and_cosine():
    step = Recipe(checkpoint="b.pth")
    assert [step.learning_rate(e) for e in (0, 59, 60, 79, 80, 99)] == pytest.approx(
        [30, 30, 3, 3, 0.3, 0.3]
    )
    cosine = Recipe(checkpoint="b.pth", schedule="cosine", lr=0.1, epochs=50)
    assert [cosine.learning_rate(e) for e in (0, 25, 49)] == pytest.approx(
        [0.1, 0.05, 0.05 * (1 - 0.998026728)], abs=1e-9
    )


def test_yaml_strings_become_numbers_and_precisions_one_spelling():
    recipe = Recipe(checkpoint="b.pth", lr="1e-3", precisions=["fp", "W4A4"])
    assert recipe.lr == 1e-3
    assert tuple(map(str, recipe.precisions)) == ("FP", "4w4a")


def test_a_validated_recipe_validates_again_to_itself():
    recipe = Recipe(checkpoint="b.pth", protocol="finetune", warmup_fc={"lr": 1}, epochs=7)
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "lineer"}, "Did you mean 'linear'"),
        ({"protocol": ["linear"]}, "no transfer protocol"),
        ({"protocol": "finetune", "augment_views": 2}, "augment_views does not apply"),
        ({"warmup_fc": {}}, "warmup_fc does not apply"),
        ({"epochs": 10, "milestones": [10]}, "would never happen"),
        ({"epochs": 10, "milestones": [5, 3]}, "do not increase"),
        ({"epochs": "ten"}, "valid integer"),
        ({"precisions": ["4w4a", "W4A4"]}, "listed twice"),
        ({"precisions": ["4x4"]}, "not a precision"),
        ({"precisions": []}, "at least 1 item"),
        ({"policy": "sssql"}, "no policy"),
        ({"eval_resize": 28}, "smaller than image_size"),
        ({"augmentation": {"scale": [1.0, 0.5]}}, "ends below its start"),
        ({"learning_rate": 1}, "Extra inputs"),
        ({"lr": [1.0]}, "at least 2 items"),
        ({"protocol": "finetune", "lr": [1.0, 2.0]}, "trains with one lr, not 2"),
        ({"lr": None}, "'linear' needs lr"),
        ({"protocol": "knn", "epochs": 5}, "does not train with SGD and has no epochs"),
        ({"protocol": "linear-exact", "lr": 1.0}, "does not train with SGD and has no lr"),
        ({"protocol": "linear-exact", "l2_strengths": [0.0]}, "greater than 0"),
        ({"label_fraction": 0.1}, "label_fraction does not apply"),
        ({"knn_k": 200}, "knn_k does not apply"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(fields, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(checkpoint="b.pth", **fields)


def test_a_checkpoint_must_be_named():
    with pytest.raises(ValidationError, match="checkpoint"):
        Recipe()


def test_identity_is_what_makes_rows_comparable():
    facts = identity(Recipe(checkpoint="b.pth", policy={"base": "ssql", "first": 4}))
    policy = get_policy({"base": "ssql", "first": 4})
    assert facts == {
        "task": "classification",
        "engine": "torch",
        "training": "-",
        "dataset": "digits",
        "split_sha256": load("digits", "val").split_sha256,
        "protocol": "linear",
        "image_size": 32,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "policy_on_board": True,
        "method": "-",
    }
    assert isinstance(VERSION, int)


def test_a_fit_on_augmented_views_is_labelled_as_another_protocol():
    assert identity(Recipe(checkpoint="b.pth", augment_views=4))["protocol"] == "linear-views4"


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"lr": [0.1, 1.0, 10.0]}, "linear-best-of-3-lr"),
        ({"protocol": "linear-exact"}, "linear-exact"),
        ({"protocol": "knn", "knn_k": 200, "knn_temperature": 0.1}, "knn-k200-t0.1"),
        ({"protocol": "semi", "label_fraction": 0.01}, "semi-1pct"),
        ({"protocol": "semi", "calibration": "official"}, "semi-10pct-official"),
    ],
)
def test_what_makes_another_protocol_is_in_its_label(fields, label):
    recipe = Recipe(checkpoint="b.pth", **fields)
    assert identity(recipe)["protocol"] == label
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


def test_published_defaults_of_semi_supervised_fine_tuning():
    semi = Recipe(checkpoint="b.pth", protocol="semi")  # Contrastive Quant on CIFAR-100, SPEC B.4
    assert (semi.epochs, semi.lr, semi.schedule, semi.momentum) == (50, 0.1, "cosine", 0.9)
    assert not semi.nesterov and semi.label_fraction == 0.1


def test_cosmetic_fields_exist_and_the_rest_decides_the_result():
    assert Recipe.cosmetic <= set(Recipe.model_fields)
    assert not {"seed", "lr", "precisions", "policy", "checkpoint"} & Recipe.cosmetic


def test_what_is_measured_is_what_papers_report_on_the_set_unless_told():
    both = ("top1", "mean_per_class")
    for dataset in ("flowers102", "pets", "caltech101"):
        assert Recipe(checkpoint="b.pth", dataset=dataset).metrics == both
    assert Recipe(checkpoint="b.pth", dataset="food101").metrics == ("top1",)
    assert Recipe(checkpoint="b.pth", dataset="pets", metrics=["top1"]).metrics == ("top1",)
    with pytest.raises(ValidationError, match="Did you mean 'pets'"):
        Recipe(checkpoint="b.pth", dataset="pet")


def test_a_set_with_pinned_splits_is_known_before_it_is_on_disk(tmp_path):
    recipe = Recipe(checkpoint="b.pth", dataset="dtd", data_root=str(tmp_path))
    assert identity(recipe)["split_sha256"] == image_set("dtd").split_sha256


def test_training_on_everything_is_another_protocol_and_leaves_nothing_to_choose_on():
    recipe = Recipe(checkpoint="b.pth", train_on="trainval")
    assert identity(recipe)["protocol"] == "linear-trainval"
    with pytest.raises(ValidationError, match=r"validation images choose one.*nothing was scored"):
        Recipe(checkpoint="b.pth", train_on="trainval", lr=[1.0, 10.0])
