"""A protocol is one file: the one in docs/extend.md, end to end."""

import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from lowbit.backbones import create_backbone, save_backbone
from lowbit.backbones.counting import network_size
from lowbit.data import load
from lowbit.transfer import Recipe, identity, run, work
from lowbit.transfer.recipe.protocol_registry import PROTOCOLS, Fitted, get_protocol, protocol

DOCS = Path(__file__).parents[3] / "docs" / "extend.md"


@pytest.fixture
def registered(monkeypatch):
    """Let a test register protocols that are gone after it."""
    monkeypatch.setattr(PROTOCOLS, "_obj_map", dict(PROTOCOLS._obj_map))


@pytest.fixture
def nearest_mean(registered):
    """Register the protocol of docs/extend.md."""
    (code,) = re.findall(r"```python\n(# transfer/protocols/.*?)```", DOCS.read_text(), re.DOTALL)
    exec(compile(code, str(DOCS), "exec"), {})


@pytest.fixture
def recipe(nearest_mean, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "backbone.pth"
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "digits"})
    return Recipe(
        checkpoint=str(path),
        architecture="resnet10_slim",
        protocol="nearest-mean",
        precisions=("FP", "4w4a"),
        cache_dir=str(tmp_path / "features"),
    )


def test_a_new_protocol_runs_and_predicts(recipe, tmp_path):
    result = run(recipe, tmp_path)
    scored = {(m["precision"], m["split"]) for m in result["measurements"]}
    assert scored == {(p, s) for p in ("FP", "4w4a") for s in ("test", "val")}
    assert result["details"]["calibration"]
    assert identity(recipe)["protocol"] == "nearest-mean"


def test_a_new_protocol_brings_its_cost(recipe):
    found = work(recipe.model_copy(update={"save_predictions": False}))
    train, scored = (
        len(load("digits", "train")),
        len(load("digits", "test")) + len(load("digits", "val")),
    )
    assert (
        found.shared_operations
        == 2 * (train + scored) * network_size("resnet10_slim", 32).operations
    )
    assert found.operations == 2 * scored * (2 * 128 * 10)


def test_fields_of_other_protocols_mean_nothing_to_it(recipe):
    for field in ({"epochs": 3}, {"knn_k": 5}):
        with pytest.raises(ValidationError, match=f"{next(iter(field))}.*nothing was scored"):
            Recipe(**recipe.model_dump() | field)


def test_its_options_mean_nothing_to_others(registered):
    @protocol(options=("label_fraction",), epochs=7, lr=0.5, weight_decay=0.0)
    def few_labels(backbone, train, **rest):
        return Fitted(lambda images: {})

    recipe = Recipe(checkpoint="b.pth", protocol="few-labels", label_fraction=0.2)
    assert (recipe.epochs, recipe.lr, recipe.milestones) == (7, 0.5, (4, 6))
    assert get_protocol("few-labels").trains
    with pytest.raises(ValidationError, match="label_fraction does not apply"):
        Recipe(checkpoint="b.pth", protocol="linear", label_fraction=0.2)


def test_work_without_a_count_is_not_known(registered):
    @protocol()
    def uncounted(backbone, train, **rest):
        return Fitted(lambda images: {})

    assert (
        work(Recipe(checkpoint="b.pth", architecture="resnet10_slim", protocol="uncounted")) is None
    )
