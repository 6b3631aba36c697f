"""What a recipe can say about a training, by each engine: optimizers, schedules, precision, scores."""

import json

import pytest
import torch

from lowbit.detection import run
from lowbit.detection.detector.detector_file import read_detector
from lowbit.detection.engines import get_engine
from lowbit.detection.stage import scored_set
from lowbit.detection.trained_detector import CALIBRATED, load_trained
from lowbit.quant import set_precision
from lowbit.training.metrics_log import read_curve
from tests.detection.test_stage import Killed, kill_at

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors

RESUMED = {
    "adamw": {"method": "lsq", "optimizer": "adamw", "lr": 1e-3},
    "adamt": {"method": "tr", "optimizer": "adamt", "lr": 1e-3, "lambda_": 0.05},
    "dampened": {"method": "lsq", "oscillation": {"method": "dampening", "start": 0}},
    "frozen": {
        "method": "tr",
        "lr": 0.03,
        "optimizer": "sgd",
        "oscillation": {
            "method": "freezing",
            "momentum": 0.02,
            "threshold": (0.1, 0.04),
            "start": 0,
        },
    },
    "steps, clipped, bfloat16": {
        "method": "lsqplus",
        "lr_schedule": "step",
        "lr_milestones": (2, 5),
        "clip_gradients": {"type": "full_model", "value": 0.5},
        "amp": True,
    },
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_killed_run_goes_on_bit_for_bit(case, make_method_recipe, tmp_path, monkeypatch):
    recipe = make_method_recipe(**RESUMED[case])
    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder in folders:
        folder.mkdir()
    run(recipe, folders[0])
    with monkeypatch.context() as patch:
        kill_at(patch, recipe.engine, 5)
        with pytest.raises(Killed):
            run(recipe, folders[1])
    run(recipe, folders[1])
    states = [read_detector(f / "detector.pth", engine=recipe.engine)[0] for f in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    lines = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert lines[0] == lines[1]


def test_steps_of_the_learning_rate_are_recorded_where_they_fall(make_method_recipe, tmp_path):
    recipe = make_method_recipe(
        "fp", lr=0.01, lr_schedule="step", lr_milestones=(3,), warmup_iterations=0, log_every=1
    )
    run(recipe, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates == pytest.approx([0.01] * 3 + [0.001] * 3)


def test_scores_on_the_way_are_kept_with_their_iteration(make_method_recipe, tmp_path):
    result = run(make_method_recipe("lsq", evaluate_at=(2, 4)), tmp_path)
    curve = read_curve(tmp_path)
    assert [row["iteration"] for row in curve] == [2, 4, 6]
    final = {m["metric"]: m["value"] for m in result["measurements"]}
    on_the_way = {name: final.pop(name) for name in ("AP@2", "AP@4")}
    assert on_the_way == {f"AP@{row['iteration']}": row["AP"] for row in curve[:2]}
    assert {k: v for k, v in curve[-1].items() if k != "iteration"} == final
    assert result["details"]["curve"] == curve


def test_scoring_on_the_way_changes_nothing(make_method_recipe, trained, tmp_path):
    engine, quiet, _ = trained
    run(make_method_recipe("fp", evaluate_at=(2, 4)), tmp_path)
    states = [read_detector(f / "detector.pth", engine=engine)[0] for f in (quiet, tmp_path)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("method", ["pact", "dorefa", "ewgs", "tr"])
def test_every_method_trains(method, make_method_recipe, tmp_path):
    result = run(make_method_recipe(method, iterations=2, lr=1e-3), tmp_path)
    assert result["details"]["quantized_layers"] == 11
    assert all(0 <= m["value"] <= 100 for m in result["measurements"])


def test_random_weights_are_a_start_that_is_asked_for(make_method_recipe, tmp_path):
    recipe = make_method_recipe(
        "fp", checkpoint=None, random_backbone=True, architecture="resnet10_slim"
    )
    result = run(recipe, tmp_path)
    assert result["checkpoint"]["method"] == "random" and result["checkpoint"]["sha256"] is None
    other = make_method_recipe("fp", checkpoint=None, random_backbone=True)
    with pytest.raises(ValueError, match="needs an architecture"):
        run(other, tmp_path / "other")


def test_ptq_scores_one_detector_at_every_precision(make_method_recipe, trained, tmp_path):
    recipe = make_method_recipe("ptq", precision="FP", precisions=("FP", "8w8a", "3w3a"))
    result = run(recipe, tmp_path)
    assert json.loads(json.dumps(result)) == result
    by_precision = {}
    for m in result["measurements"]:
        by_precision.setdefault(m["precision"], {})[m["metric"]] = m["value"]
    assert list(by_precision) == ["FP", "8w8a", "3w3a"]
    full = {m["metric"]: m["value"] for m in trained[2]["measurements"]}
    assert by_precision["FP"] == full  # the detector as it was trained
    for precision in by_precision:
        assert (tmp_path / result["artifacts"][f"detections_{precision}"]).is_file()
    if trained[0] == "torchvision":  # Detectron2's finds nothing after so few iterations
        found = [(tmp_path / f"detections_{p}.json").read_text() for p in by_precision]
        assert len(set(found)) == 3
    for precision, bits in (("FP", set()), ("8w8a", {8}), ("3w3a", {3})):
        rows = result["details"]["layers"][precision]
        found = {row["weight_bits"] for row in rows if "layer2" in row["name"]}
        assert found - {32} == bits
    assert not (tmp_path / "detector.pth").exists()


@pytest.mark.parametrize(("policy", "scope"), [("ssql", "backbone"), ("lsq", "full")])
def test_ptq_leaves_its_calibrated_detector(make_method_recipe, trained, tmp_path, policy, scope):
    recipe = make_method_recipe(
        "ptq",
        precision="FP",
        precisions=("FP", "8w8a", "3w3a"),
        policy=policy,
        scope=scope,
    )
    result = run(recipe, tmp_path)
    engine = get_engine(trained[0])
    path = tmp_path / result["artifacts"][CALIBRATED]
    detector, made = load_trained(path, engine=engine, device="cpu")
    assert made.precisions == recipe.precisions and made.scope == scope
    images = scored_set(recipe)
    for precision in recipe.precisions:
        set_precision(detector, precision)
        scored = json.loads((tmp_path / f"detections_{precision}.json").read_text())
        assert engine.predict(detector, images, made) == scored
