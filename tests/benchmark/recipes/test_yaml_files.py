"""YAML with inheritance and overrides, and what is said about files that are wrong."""

import pytest

from lowbit.benchmark.recipes.stages import get_stage
from lowbit.benchmark.recipes.yaml_files import (
    RecipeError,
    load_yaml,
    parse_overrides,
    set_key,
    validate,
)


@pytest.fixture
def write(tmp_path):
    def _write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return _write


def test_a_base_is_merged_key_by_key_and_lists_are_replaced(write):
    write("base.yaml", "lr: 1\naugmentation: {flip: 0.5, scale: [0.2, 1]}\nseeds: [0, 1]\n")
    write("sub/middle.yaml", "_BASE_: ../base.yaml\naugmentation: {scale: [0.8, 1]}\n")
    path = write("leaf.yaml", "_BASE_: sub/middle.yaml\nlr: 2\nseeds: [7]\n")
    assert load_yaml(path) == {
        "lr": 2,
        "augmentation": {"flip": 0.5, "scale": [0.8, 1]},
        "seeds": [7],
    }


def test_bases_in_a_circle_are_refused_with_the_circle(write):
    write("a.yaml", "_BASE_: b.yaml\n")
    path = write("b.yaml", "_BASE_: a.yaml\n")
    with pytest.raises(RecipeError, match=r"circle: .*b\.yaml -> .*a\.yaml -> .*b\.yaml; nothing"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("2.5e-4", 2.5e-4),
        ("-3e2", -300.0),
        (".5", 0.5),
        ("1e-3x", "1e-3x"),
        ("4w4a", "4w4a"),
        ("3", 3),
        ("null", None),
        ("[FP, 4w4a]", ["FP", "4w4a"]),
        ("0.0", 0.0),
        ("0o10", 8),
        ("'1:30'", "1:30"),
    ],
)
def test_numbers_are_numbers_in_files_and_overrides(write, text, value):
    assert load_yaml(write("a.yaml", f"key: {text}\n")) == {"key": value}
    assert parse_overrides(["key", text]) == [("key", value)]


def test_overrides_are_pairs_or_assignments_and_a_value_may_hold_an_equals_sign():
    words = ["lr", "1e-3", "a.b=2", "path", "/x=y.pth", "name=k=v", "precisions", "[FP, 4w4a]"]
    assert parse_overrides(words) == [
        ("lr", 1e-3),
        ("a.b", 2),
        ("path", "/x=y.pth"),
        ("name", "k=v"),
        ("precisions", ["FP", "4w4a"]),
    ]


def test_overrides_reach_into_mappings_and_lists(write):
    path = write("a.yaml", "augmentation: {flip: 0.5}\ntransfer: [{recipe: x}, {recipe: y}]\n")
    words = ["augmentation.flip", "0", "transfer.1.overrides.lr", "3", "new.deep", "1"]
    assert load_yaml(path, words) == {
        "augmentation": {"flip": 0},
        "transfer": [{"recipe": "x"}, {"recipe": "y", "overrides": {"lr": 3}}],
        "new": {"deep": 1},
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr"], "'lr' has no value"),
        (["lr", "1", "seed"], "'seed' has no value"),
        (["lr", "[1,"], "'lr' is not YAML"),
        (["lr.deep", "1"], "lr is 3, not a mapping"),
        (["transfer.4.lr", "1"], "no item of a list of 1"),
        ([f"transfer.{'9' * 5000}.lr", "1"], "no item of a list of 1"),
        (["transfer.\u0663.lr", "1"], "no item of a list of 1"),
        (
            ["empty.0", "1"],
            "no item of a list of 0; nothing was run. Count from 0; the list is empty",
        ),
        (["a" + ".a" * 40, "1"], "names more than 32 levels"),
        (["lr", "1:30"], "1:30 is a number or a date in YAML 1.1 alone"),
        (["lr", "yes"], "write true or false"),
        (["lr", "\x1b[2J"], "'lr' is not YAML: '\\x1b[2J'"),
        (["lr", "\udcff"], "characters that are none"),
        (["lr", "[" + "x" * 5000], "'lr' is not YAML"),
    ],
)
def test_wrong_overrides_are_named(write, words, said):
    path = write("a.yaml", "lr: 3\nempty: []\ntransfer: [{recipe: x}]\n")
    with pytest.raises(RecipeError, match="nothing was run") as error:
        load_yaml(path, words)
    assert said in str(error.value)
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 1\nname: [1, 2\nseed: 3\n", r"a\.yaml, line 3, column \d+ is not valid YAML"),
        ("lr: 1\nseed: 0\nlr: 2\n", r"a\.yaml, line 3, column 1 .*'lr' is given twice"),
        ("- 1\n- 2\n", "holds a list where keys were expected"),
        ("_BASE_: [b.yaml]\n", r"a\.yaml, line 1: _BASE_ must name one file"),
        ("lr: 1\nepochs: 1:30\n", r"a\.yaml, line 2, column 9 .*1:30 is a number or a date in"),
        ("lr: 1\nepochs: 1e999\n", r"a\.yaml, line 2, column 9 .*no finite number"),
        ("lr: 1\n? [a]\n: 1\n", r"a\.yaml, line 2, column 3 .*is not text; quote it"),
        ("_BASE_: gone.yaml\n", r"no file .*gone\.yaml \(_BASE_ of .*a\.yaml, line 1\)"),
    ],
)
def test_wrong_files_are_named_with_their_line(write, text, said):
    with pytest.raises(RecipeError, match=said) as error:
        load_yaml(write("a.yaml", text))
    assert "nothing was run" in str(error.value)


def test_a_missing_file_is_answered_with_one_of_a_like_name(write, tmp_path):
    write("digits_linear.yaml", "lr: 1\n")
    with pytest.raises(RecipeError, match=r"Did you mean 'digits_linear\.yaml'"):
        load_yaml(tmp_path / "digit_linear.yaml")


def test_an_empty_file_is_an_empty_recipe(write):
    assert load_yaml(write("a.yaml", "# nothing but defaults\n")) == {}


def test_set_key_changes_in_place():
    mapping = {"a": None}
    set_key(mapping, "a.b", 1)
    assert mapping == {"a": {"b": 1}}


def test_an_unknown_key_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match=r"epoch: unknown key\. Did you mean 'epochs'") as error:
        validate("transfer", {"checkpoint": "x.pth", "epoch": 3}, source="linear.yaml")
    message = str(error.value)
    assert message.startswith("linear.yaml (a transfer recipe): 1 key is wrong; nothing was run.")
    assert "KEY VALUE" in message


def test_every_wrong_key_is_named_with_what_it_allows():
    mapping = {"calibration": "cleen", "batch_size": 0, "augmentation": {"flop": 1}}
    with pytest.raises(RecipeError) as error:
        validate("transfer", mapping)
    message = str(error.value)
    assert "4 keys are wrong" in message
    assert "calibration: Input should be 'clean' or 'official'; got 'cleen'." in message
    assert "Did you mean 'clean'" in message
    assert "batch_size: Input should be greater than or equal to 2; got 0." in message
    assert "augmentation.flop: unknown key. Did you mean 'flip'" in message
    assert "checkpoint: required, but not given. It is: backbone file." in message


@pytest.mark.parametrize(
    ("stage", "mapping"),
    [
        ("transfer", {"checkpoint": "x.pth", "epochs": True}),
        ("transfer", {"checkpoint": "x.pth", "augmentation": {"flip": True}}),
        ("transfer", {"checkpoint": "x.pth", "milestones": [1, True]}),
        ("detection", {"checkpoint": "x.pth", "voc_base": True}),
        ("pretrain", {"architecture": "resnet20", "dataset": "digits", "epochs": True}),
    ],
)
def test_a_flag_is_no_number(stage, mapping):
    with pytest.raises(
        RecipeError, match=r"1 key is wrong.*\n.*true and false are not allowed here"
    ):
        validate(stage, mapping)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"weight": {}},
        {"weight": {"kind": None}},
        {"weight": {"kind": [1]}},
        {"base": 3},
        {"base": "lsq", "weight": "lsq"},
        {"base": "lsq", "rules": None},
        {"base": "lsq", "rules": [[1, 2, 3]]},
        {"base": "lsq", "rules": [[8, 8]]},
        {"base": "lsq", "first": {"bits": 8}},
    ],
)
def test_a_policy_with_values_of_another_type_is_a_wrong_key(policy):
    with pytest.raises(
        RecipeError, match=r"policy: .* is not a policy \(.*\); nothing was quantized"
    ):
        validate("transfer", {"checkpoint": "x.pth", "policy": policy})


def test_what_is_quoted_of_wrong_values_is_bounded():
    nested = [["x" * 1000] * 100] * 100
    wrong = {f"key{number}": nested for number in range(150)}
    with pytest.raises(RecipeError) as error:
        validate("transfer", {"checkpoint": "x.pth", "device": nested, "name": "\x1b[2J", **wrong})
    message = str(error.value)
    assert "151 keys are wrong" in message and "and 131 more" in message
    assert "device: Input should be a valid string; got [['xxx" in message
    assert len(message) < 60_000 and "\x1b" not in message


def test_a_valid_recipe_is_the_stages_frozen_model():
    recipe = validate("transfer", {"checkpoint": "x.pth", "lr": 1})
    assert type(recipe) is get_stage("transfer").Recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.lr = 2
