"""Whole jobs by each engine: what they return, how they resume, and what they refuse."""

import json
import shutil

import pytest
import torch

from lowbit.detection import Recipe, identity, run
from lowbit.detection.detector.detector_file import read_detector
from lowbit.detection.engines import get_engine, resolve_engine
from lowbit.detection.scoring.halves_file import read_halves
from lowbit.detection.stage import load_images
from lowbit.detection.trained_detector import load_trained
from lowbit.detection.with_detectron2.install import INSTALL_DETECTRON2
from lowbit.quant import quantized_layers, scales
from lowbit.training.seeding import seed_everything
from tests.detection.stopping import SEEDED_BY

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors

METHODS = ("fp", "lsq", "sgdt")


class Killed(BaseException):
    """Stands for a signal: nothing that handles errors may handle it."""


def state_of(folder, engine):
    return read_detector(folder / "detector.pth", engine=engine)[0]


def test_a_job_returns_what_the_contract_says(trained):
    _, folder, result = trained
    assert json.loads(json.dumps(result)) == result  # plain JSON types
    assert [m["metric"] for m in result["measurements"]] == ["AP", "AP50", "AP75", "APs"]
    for measurement in result["measurements"]:
        assert 0 <= measurement["value"] <= 100
        assert (measurement["n"], measurement["split"], measurement["unit"]) == (6, "test", "%")
        assert measurement["precision"] == "FP"
    assert set(result["costs"]) == {"FP"} and result["costs"]["FP"]["bit_operations"] > 0
    assert result["checkpoint"]["method"] == "untrained"
    assert result["checkpoint"]["architecture"] == "resnet10_slim"
    assert len(result["checkpoint"]["sha256"]) == 64
    assert (folder / result["artifacts"]["checkpoint"]).is_file()
    halved = read_halves(folder / result["artifacts"]["halves"])
    errors = {where[2]: values.std(ddof=1) for where, values in halved.halves.items()}
    known = {m["metric"]: m["stderr"] for m in result["measurements"] if "stderr" in m}
    assert {name: errors[name] for name in known} == pytest.approx(known)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [2, 4, 6, 6]
    found = {m["metric"]: m["value"] for m in result["measurements"]}
    assert lines.pop() == {"iteration": 6, "scores": found}
    assert set(lines[0]) == {"iteration", "total_loss", "loss_cls", "loss_box_reg", "lr"}
    assert lines[0]["total_loss"] == pytest.approx(lines[0]["loss_cls"] + lines[0]["loss_box_reg"])


@pytest.mark.parametrize("method", ["lsq", "sgdt"])
def test_a_quantized_job_goes_on_from_the_detector(method, make_method_recipe, trained, finished):
    recipe = make_method_recipe(method)
    folder, result = finished(method)
    assert result["checkpoint"] == trained[2]["checkpoint"]
    assert {m["precision"] for m in result["measurements"]} == {"4w4a"}
    assert result["details"]["quantized_layers"] == 11
    assert result["details"]["learned_scales"] == {"lsq": 22, "sgdt": 11}[method]
    assert result["details"]["calibration_images"] == 8
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-2])
    if method == "sgdt":
        assert line["transitions"]["target"] < recipe.lambda_ * 2  # 1e-3 sqrt(4), falling
        assert {len(line["transitions"][name]) for name in ("running", "lr")} == {11}
    else:
        assert "transitions" not in line


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_bit_for_bit(
    method, make_method_recipe, finished, tmp_path, monkeypatch
):
    # States after 3 and 6: the line of iteration 4 is written, lost with the kill, and repeated.
    recipe = make_method_recipe(method)
    straight_folder, straight = finished(method)

    with monkeypatch.context() as patch:
        killed = kill_at(patch, recipe.engine, 5)
        with pytest.raises(Killed):
            run(recipe, tmp_path)
    assert not (tmp_path / "detector.pth").exists()
    resumed = run(recipe, tmp_path)

    assert killed == [5]
    folders = straight_folder, tmp_path
    states = [state_of(folder, recipe.engine) for folder in folders]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert straight["measurements"] == resumed["measurements"]
    metrics = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert metrics[0] == metrics[1]


def kill_at(patch, engine, step):
    """Raise `Killed` when the `step`-th iteration begins; return a list that will say so."""
    killed = []

    def seed_or_die(seed, iteration):
        if iteration == step:
            killed.append(iteration)
            raise Killed
        seed_everything(seed, iteration)

    patch.setattr(SEEDED_BY[engine], seed_or_die)
    return killed


def test_a_finished_training_is_not_repeated(make_method_recipe, trained, tmp_path, monkeypatch):
    """What a kill during the evaluation leaves: the states are read, no step is taken."""
    _, folder, first = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda *args, **kwargs: pytest.fail("a step was taken")
    )
    assert run(make_method_recipe("fp"), tmp_path) == first


@pytest.mark.parametrize("method", METHODS)
def test_a_detector_file_is_rebuilt_from_itself(method, make_method_recipe, finished):
    recipe = make_method_recipe(method)
    folder, result = finished(method)
    engine = get_engine(recipe.engine)
    detector, made = load_trained(folder / "detector.pth", engine=engine, device="cpu")
    assert (made.method, made.precision) == (recipe.method, recipe.precision)
    assert len(quantized_layers(detector)) == (0 if method == "fp" else 11)
    assert len(scales(detector)) == result["details"]["learned_scales"]
    images = load_images(recipe, "test")
    file = torch.load(folder / "detector.pth", weights_only=True)  # no code in it
    assert all(torch.equal(file["model"][k], v) for k, v in detector.state_dict().items())
    assert len(engine.predict(detector, images, made)) >= 0
    text = json.dumps(file["meta"])
    assert str(folder) not in text and str(recipe.checkpoint) not in text


def test_the_other_engines_detector_is_refused(make_recipe, trained, tmp_path):
    engine, folder, _ = trained
    other = {"torchvision": "detectron2", "detectron2": "torchvision"}[engine]
    recipe = make_recipe(
        engine=other, method="lsq", precision="4w4a", detector=str(folder / "detector.pth")
    )
    if resolve_engine("auto") != "detectron2" and other == "detectron2":
        pytest.skip("Detectron2 is not installed, so nothing can ask for it")
    with pytest.raises(ValueError, match=f"trained by engine '{engine}'.*`engine: {engine}`"):
        run(recipe, tmp_path)


def test_another_shape_of_detector_is_refused(make_method_recipe, tmp_path):
    with pytest.raises(ValueError, match="does not fit this detector"):
        run(make_method_recipe("lsq", fpn_channels=64), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(make_method_recipe, tmp_path):
    with pytest.raises(FloatingPointError) as caught:
        run(make_method_recipe("fp", lr=1e12, norm="none", checkpoint_every=1), tmp_path)
    told = str(caught.value)
    assert "iteration" in told and "1e+12" in told and "Lower `lr`" in told
    assert not (tmp_path / "detector.pth").exists()


def test_a_folder_belongs_to_one_job(make_recipe, tmp_path):
    run(make_recipe(iterations=1), tmp_path)
    with pytest.raises(ValueError, match=r"differs in iterations, lr; nothing was trained"):
        run(make_recipe(iterations=2, lr=0.5), tmp_path)
    run(make_recipe(iterations=1, name="renamed", log_every=1), tmp_path)  # cosmetic


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"checkpoint": None}, "names no backbone"),
        ({"method": "lsq", "precision": "4w4a"}, "names none"),
        ({"device": "warp"}, "cannot be used"),
        ({"features": ("res9",)}, "no stage 'res9'"),
        ({"features": ("res2", "res5")}, "strides that double"),
    ],
)
def test_what_is_missing_or_wrong_is_said_first(make_recipe, tmp_path, fields, told):
    with pytest.raises(ValueError, match=told):
        run(make_recipe(**fields), tmp_path)


def test_a_missing_backbone_file_is_named(make_recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(make_recipe(checkpoint="nowhere.pth"), tmp_path)


def test_identity_says_what_rows_compare_with():
    recipe = Recipe(engine="torchvision", method="lsq", precision="4w4a")
    facts = identity(recipe)
    assert facts["task"] == "detection" and facts["engine"] == "torchvision"
    assert (facts["policy"], len(facts["policy_fingerprint"])) == ("lsq", 12)
    assert facts["policy_on_board"] is False and len(facts["split_sha256"]) == 64
    for change in ({"test_images": 7}, {"image_size": 80}, {"scene_seed": 1}):
        other = identity(recipe.model_copy(update=change))
        assert other["split_sha256"] != facts["split_sha256"]
    for change in ({"lr": 0.5}, {"iterations": 7}, {"name": "x"}):
        assert identity(recipe.model_copy(update=change)) == facts
    assert identity(Recipe(engine="torchvision"))["policy"] == "-"


def test_without_detectron2_auto_is_torchvision_and_asking_gives_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_engine("auto") == "torchvision"
    with pytest.raises(ImportError) as caught:
        resolve_engine("detectron2")
    assert INSTALL_DETECTRON2 in str(caught.value)
    assert "--no-build-isolation" in INSTALL_DETECTRON2 and "@02b5c4e2" in INSTALL_DETECTRON2


def test_with_detectron2_auto_is_detectron2(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert resolve_engine("auto") == "detectron2"
    assert resolve_engine("torchvision") == "torchvision"
