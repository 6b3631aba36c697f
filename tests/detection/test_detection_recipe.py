"""Recipes that make no sense are refused before anything is trained."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmark.recipe import load_yaml, validate
from detection import Recipe

CONFIGS = Path(__file__).parents[2] / "configs" / "detection"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "lsq"}, "lsq' at precision FP makes no sense"),
        ({"method": "fp", "precision": "4w4a"}, "fp' at precision 4w4a makes no sense"),
        ({"policy": "lsq"}, "method 'fp' quantizes nothing"),
        ({"method": "sgdt", "precision": "4w4a", "policy": "ssql"}, "its transition points move"),
        ({"dataset": "digits"}, "there is no detection set 'digits'"),
        ({"calibration_images": 64, "train_images": 10}, "only 10 training images"),
        ({"digit_size": (16, 500)}, "nothing was drawn"),
        ({"fpn_channels": 48}, "GN has 32 groups"),
        ({"lambda": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_a_senseless_recipe_is_refused(fields, told):
    with pytest.raises(ValidationError) as caught:
        Recipe(**fields)
    assert told in str(caught.value)


def test_precision_has_one_spelling_and_policies_follow_the_method():
    assert Recipe(method="lsq", precision="W4A4").precision == "4w4a"
    assert Recipe(method="lsq", precision="4w4a").quant_policy.name == "lsq"
    assert Recipe(method="sgdt", precision="4w4a").quant_policy.name == "tr"
    assert Recipe().quant_policy is None
    varied = Recipe(method="lsq", precision="4w4a", policy={"base": "lsq", "first": 8})
    assert varied.quant_policy.first.weight == 8


def test_the_solver_takes_its_numbers_from_the_recipe():
    solver = Recipe(method="sgdt", precision="3w3a", lr=0.2, lambda_=5e-3, iterations=7).solver
    assert (solver.optimizer, solver.weight_bits) == ("sgdt", 3)
    assert (solver.lr, solver.lambda_, solver.iterations) == (0.2, 5e-3, 7)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_recipes_are_valid_and_say_what_they_are(file):
    recipe = validate("detection", load_yaml(file), source=file)
    if not file.stem.startswith("_"):
        assert recipe.name == file.stem
        header = file.read_text()
        assert all(word in header for word in ("# Paper", "# Command", "# Published", "# Cost"))
