"""Recipes that make no sense are refused before anything is trained."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.detection import Recipe
from lowbit.quant import Precision

YOLOV4 = {
    "meta_architecture": "yolov4",
    "features": ("res3", "res4", "res5"),
    "train_sizes": (96,),
}
CONFIGS = Path(__file__).parents[2] / "configs" / "detection"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "lsq"}, "lsq' at precision FP makes no sense"),
        ({"method": "fp", "precision": "4w4a"}, "fp' at precision 4w4a makes no sense"),
        ({"policy": "lsq"}, "method 'fp' quantizes nothing"),
        ({"method": "sgdt", "precision": "4w4a", "policy": "ssql"}, "its transition points move"),
        ({"dataset": "digits"}, "there is no detection set named 'digits'"),
        ({"calibration_images": 64, "train_images": 10}, "only 10 training images"),
        ({"digit_size": (16, 500)}, "nothing was drawn"),
        ({"fpn_channels": 48}, "GN has 32 groups"),
        ({"lambda": 1.0}, "Extra inputs are not permitted"),
        ({"optimizer": "adamt"}, "method 'fp' trains none"),
        ({"method": "sgdt", "precision": "4w4a", "optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"method": "dorefa", "precision": "4w4a", "optimizer": "sgdt"}, "transition points move"),
        ({"target_schedule": "linear"}, "follows no target rate"),
        ({"lr_schedule": "step"}, "needs the iterations of its drops"),
        ({"lr_milestones": (5,)}, "needs the iterations of its drops"),
        ({"lr_schedule": "step", "lr_milestones": (9, 5)}, "do not increase"),
        ({"lr_schedule": "step", "lr_milestones": (5, 1000)}, "would never happen"),
        ({"method": "ptq"}, "List them, precisions"),
        ({"method": "ptq", "precisions": ("4w4a", "W4A4")}, "given twice"),
        ({"precisions": ("4w4a",)}, "or use ptq"),
        ({"random_backbone": True, "checkpoint": "x.pth"}, "without a checkpoint"),
        ({"flip": True}, "a mirrored digit is not a digit"),
        ({"evaluate_at": (2000, 5)}, "iterations after the end"),
        ({"clip_gradients": {"type": "norms"}}, "'value', 'norm' or 'full_model'"),
        ({"oscillation": {"method": "freezing"}}, "method 'fp' trains none"),
        (
            {"method": "sgdt", "precision": "4w4a", "oscillation": {"method": "dampening"}},
            "a rival of transition-rate scheduling, and the optimizer is sgdt",
        ),
        ({"opts": ("SEED", 1)}, "the recipe names none"),
        ({"lr_end": 1.0}, "lr_end is 1.0, lr 0.1"),
        (
            {"lr_end": 0.01, "lr_schedule": "step", "lr_milestones": (5,)},
            "Only a cosine has an end",
        ),
        ({"norm": "BN"}, "norm BN is set, which only YOLOv4 has"),
        ({"yolov4": {}}, "yolov4 is set, which only YOLOv4 has"),
        (YOLOV4 | {"yolov4": {"anchors": ((1, 2),)}}, "anchors lists 1 shapes"),
        (YOLOV4 | {"yolov4": {"anchors": "mean"}}, "'original' or 'kmeans'"),
        (YOLOV4 | {"yolov4": {"anchors": ((0, 2),) * 9}}, "greater than 0"),
        (YOLOV4 | {"yolov4": {"mosaic": 2}}, "less than or equal to 1"),
        (YOLOV4 | {"yolov4": {"mixup": 1}}, "Extra inputs are not permitted"),
        (YOLOV4 | {"features": ("res4", "res5")}, "features lists 2 stages"),
        (YOLOV4 | {"train_sizes": ()}, "Set train_sizes to its side"),
        (
            YOLOV4 | {"head_convs": 4, "anchor_scales": (1.0,), "extra_levels": True},
            "extra_levels, head_convs, anchor_scales would have no effect on YOLOv4",
        ),
        (YOLOV4 | {"fpn_channels": 48}, "GN has 32 groups"),
        (
            {"config": "x.yaml", "lr": 0.5, "dataset": "coco"},
            "sets dataset, lr, which it would not read",
        ),
        ({"config": "x.yaml", "opts": ("SEED",)}, "Give pairs"),
    ],
)
def test_a_senseless_recipe_is_refused(fields, told):
    with pytest.raises(ValidationError) as caught:
        Recipe(**fields)
    assert told in str(caught.value)


def test_precision_has_one_spelling_and_policies_follow_the_method():
    assert Recipe(method="lsq", precision="W4A4").precision == Precision(4, 4)
    assert Recipe(method="lsq", precision="4w4a").quant_policy.name == "lsq"
    assert Recipe(method="sgdt", precision="4w4a").quant_policy.name == "tr"
    assert Recipe().quant_policy is None
    kinds = {}
    for method in ("lsqplus", "pact", "dorefa", "ewgs", "tr"):
        policy = Recipe(method=method, precision="4w4a").quant_policy
        kinds[method] = (policy.weight.kind, policy.activation.kind)
    assert kinds == {
        "lsqplus": ("LSQPlus", "LSQPlus"),
        "pact": ("DoReFa", "PACT"),
        "dorefa": ("DoReFa", "DoReFa"),
        "ewgs": ("EWGS", "EWGS"),
        "tr": ("Interval", "Interval"),
    }
    varied = Recipe(method="lsq", precision="4w4a", policy={"base": "lsq", "first": 8})
    assert varied.quant_policy.first.weight == 8


def test_the_solver_takes_its_numbers_from_the_recipe():
    solver = Recipe(method="sgdt", precision="3w3a", lr=0.2, lambda_=5e-3, iterations=7).solver
    assert (solver.optimizer, solver.weight_bits) == ("sgdt", 3)
    assert (solver.lr, solver.lambda_, solver.iterations) == (0.2, 5e-3, 7)


def test_newer_fields_are_left_out_at_their_defaults_and_read_again():
    """Ids are hashes of what is written: jobs without them keep theirs."""
    assert not {"yolov4", "lr_end"} & Recipe().model_dump(mode="json").keys()
    recipe = Recipe(
        **YOLOV4, yolov4={"anchors": [[10 * i, 9.5] for i in range(1, 10)]}, lr_end=1e-3
    )
    assert Recipe(**recipe.model_dump(mode="json")) == recipe
    assert recipe.solver.lr_end == 1e-3
    assert Recipe(**YOLOV4).yolov4_settings.anchors == "original"


def test_scales_of_weights_are_learned_but_under_a_schedule():
    plain = Recipe(method="tr", precision="4w4a").quant_policy
    scheduled = Recipe(method="tr", precision="4w4a", optimizer="adamwt").quant_policy
    assert plain.name == "interval" and plain.weight.options.get("learn_scale", True)
    assert scheduled.weight.options == {"learn_scale": False}
    assert scheduled == Recipe(method="sgdt", precision="4w4a").quant_policy


def test_scenes_are_counted_and_folders_are_taken_whole():
    assert (Recipe().train_images, Recipe().test_images) == (2000, 300)
    assert Recipe(test_images=7).test_images == 7
    folder = Recipe(dataset="voc:birds")
    assert (folder.train_images, folder.test_images) == (None, None)
    assert Recipe(**folder.model_dump()) == folder  # as a job's process reads it again


def test_only_vocs_folders_have_a_base_of_corners():
    assert Recipe(dataset="voc:birds", voc_base=0).voc_base == 0
    for dataset in ("coco:birds", "digit-scenes", "voc0712"):
        with pytest.raises(ValueError, match="voc_base is 0, which only voc:NAME has"):
            Recipe(dataset=dataset, voc_base=0)
    with pytest.raises(ValueError, match="voc_base"):
        Recipe(dataset="voc:birds", voc_base=2)


def test_a_configuration_is_a_recipe_that_can_be_written_and_read():
    recipe = Recipe(config="x.yaml", opts=("SOLVER.MAX_ITER", 5), detector="d.pth", seed=3)
    assert Recipe(**recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_recipes_are_valid_and_say_what_they_are(file):
    recipe = validate("detection", load_yaml(file), source=file)
    if not file.stem.startswith("_"):
        assert recipe.name == file.stem
        header = file.read_text()
        assert all(word in header for word in ("# Paper", "# Command", "# Published", "# Cost"))
