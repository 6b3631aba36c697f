"""Detectron2 configurations as jobs: what names them, and every family of detectors by its instant test."""

import json
from pathlib import Path

import pytest
import torch

from detection import Recipe, identity, missing_data, run
from detection.files import read_detector
from tests.detection.test_detection_stage import Killed, kill_at

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

FOLDER = "configs/detection/detectron2"
RETINANET = f"{FOLDER}/digit_scenes_retinanet_fp_instant_test.yaml"
SGDT = f"{FOLDER}/digit_scenes_retinanet_sgdt_instant_test.yaml"
SETS = ("DATASETS.TRAIN", ("digit_scenes_job",), "DATASETS.TEST", ("digit_scenes_job",))


@pytest.fixture(autouse=True)
def tiny_scenes():
    from detection.catalog import register
    from detection.datasets import load_detection
    from detection.scenes import Layout

    layout = Layout(64, (1, 2), (16, 32))
    register("digit_scenes_job", lambda: load_detection("digit-scenes", "train", 6, layout=layout))


def job(config, *opts, **fields) -> Recipe:
    return Recipe(config=config, opts=(*SETS, *opts), device="cpu", **fields)


@pytest.fixture(scope="module")
def detector(backbone_file, tmp_path_factory):
    """A RetinaNet in full precision, trained by its configuration."""
    from detection.catalog import register
    from detection.datasets import load_detection
    from detection.scenes import Layout

    layout = Layout(64, (1, 2), (16, 32))
    register("digit_scenes_job", lambda: load_detection("digit-scenes", "train", 6, layout=layout))
    folder = tmp_path_factory.mktemp("fp")
    recipe = job(RETINANET, "MODEL.LOWBIT.FPN_RELU", True, checkpoint=backbone_file)
    return folder, run(recipe, folder)


def test_a_configuration_gives_a_result_like_a_recipes(detector):
    folder, result = detector
    assert json.loads(json.dumps(result)) == result
    assert [m["metric"] for m in result["measurements"]] == ["AP", "AP50", "AP75", "APs"]
    for measurement in result["measurements"]:
        assert (measurement["n"], measurement["precision"]) == (6, "FP")
    assert result["checkpoint"]["architecture"] == "resnet10_slim"
    assert (folder / result["artifacts"]["checkpoint"]).is_file()
    assert [row["iteration"] for row in result["details"]["curve"]] == [10]
    assert "MAX_ITER: 10" in result["details"]["config"]


def test_a_killed_job_goes_on_bit_for_bit_with_its_curve(detector, tmp_path, monkeypatch):
    file = str(detector[0] / "detector.pth")
    recipe = job(SGDT, detector=file)
    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder in folders:
        folder.mkdir()
    straight = run(recipe, folders[0])
    with monkeypatch.context() as patch:
        kill_at(patch, "detectron2", 8)
        with pytest.raises(Killed):
            run(recipe, folders[1])
    resumed = run(recipe, folders[1])
    assert straight["measurements"] == resumed["measurements"]
    assert [row["iteration"] for row in straight["details"]["curve"]] == [5, 10]
    assert straight["details"]["curve"] == resumed["details"]["curve"]
    states = [read_detector(f / "detector.pth", engine="detectron2")[0] for f in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {m["precision"] for m in straight["measurements"]} == {"4w4a"}
    assert run(recipe, folders[1])["measurements"] == straight["measurements"]  # nothing to train
    with pytest.raises(ValueError, match=r"differs in SOLVER.BASE_LR; nothing was trained"):
        run(job(SGDT, "SOLVER.BASE_LR", 0.5, detector=file), folders[1])


@pytest.mark.parametrize("family", ["faster_rcnn", "faster_rcnn_C4"])
def test_a_family_holds_together(family, backbone_file, tmp_path):
    """From a backbone file to a quantized detector and its scores, in a few iterations."""
    config = f"{FOLDER}/digit_scenes_{family}_fp_instant_test.yaml"
    first, second = tmp_path / "fp", tmp_path / "lsq"
    first.mkdir()
    second.mkdir()
    short = ("SOLVER.MAX_ITER", 3, "SOLVER.STEPS", (2,))
    result = run(job(config, *short, checkpoint=backbone_file), first)
    assert result["measurements"][0]["metric"] == "AP"
    quant = ("MODEL.QUANT.ENABLED", True, "MODEL.QUANT.CALIBRATION_IMAGES", 4)
    recipe = job(config, *short, *quant, detector=str(first / "detector.pth"))
    assert {m["precision"] for m in run(recipe, second)["measurements"]} == {"4w4a"}
    before, after = (
        read_detector(f / "detector.pth", engine="detectron2")[0] for f in (first, second)
    )
    latent = [
        n.replace("w_quant.q_scale", "weight") for n in after if n.endswith("w_quant.q_scale")
    ]
    assert latent and all(not torch.equal(before[name], after[name]) for name in latent)
    assert not any(".res5." in name for name in latent)  # in a head


def test_identity_is_the_configuration_without_paths_and_periods(tmp_path):
    facts = identity(job(SGDT))
    assert (facts["engine"], facts["protocol"], facts["policy"]) == (
        "detectron2",
        "RetinaNet",
        "tr",
    )
    assert (facts["method"], facts["training"]) == ("sgdt", "sgdt, full")
    copy = tmp_path / "renamed.yaml"
    copy.write_text(f"_BASE_: {Path(SGDT).resolve()}\n")
    same = [
        job(str(copy)),
        job(SGDT, detector="other.pth"),
        job(SGDT, "TEST.EVAL_PERIOD", 7, "SOLVER.CHECKPOINT_PERIOD", 1, "OUTPUT_DIR", "x"),
    ]
    assert all(identity(other) == facts for other in same)
    assert identity(job(SGDT, "SOLVER.LAMBDA", 0.5))["config_sha256"] != facts["config_sha256"]


def test_what_is_missing_or_wrong_is_said(tmp_path, monkeypatch):
    coco = f"{FOLDER}/retinanet_R_18_FPN_90k_fp.yaml"
    told = missing_data(Recipe(config=coco))
    assert "instances_train2017.json" in told and "DETECTRON2_DATASETS" in told
    assert missing_data(job(RETINANET)) is None
    with pytest.raises(FileNotFoundError, match="there is no configuration nowhere"):
        identity(Recipe(config="nowhere.yaml"))
    with pytest.raises(ValueError, match="there is no data set 'coco_2018'"):
        identity(Recipe(config=coco, opts=("DATASETS.TRAIN", ("coco_2018",))))
    with pytest.raises(ValueError, match="evaluated on 2 sets"):
        identity(Recipe(config=coco, opts=("DATASETS.TEST", ("coco_2017_val", "coco_2017_train"))))


def test_a_job_is_named_by_what_its_configuration_says(tmp_path):
    from benchmark.job import Job, Label

    def plan(recipe):
        return Job.plan("detection", recipe, inputs={}, label=Label("x"))

    copy = tmp_path / "renamed.yaml"
    copy.write_text(f"_BASE_: {Path(SGDT).resolve()}\n")
    first, same = plan(job(SGDT)), plan(job(str(copy), "OUTPUT_DIR", "x"))
    other = plan(job(SGDT, "SOLVER.LAMBDA", 0.5))
    assert first.problem is None and first.missing is None
    assert first.id == same.id != other.id
    assert first.question == same.question != other.question
