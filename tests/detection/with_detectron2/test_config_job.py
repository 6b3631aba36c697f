"""Detectron2 configurations as jobs: what names them, and every family of detectors by its instant test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.common.preemption import Preempted
from lowbit.detection import Recipe, identity, missing_data, run
from lowbit.detection.detector.detector_file import read_detector
from tests.detection.annotated_folders import annotation, coco_content, write_coco, write_voc
from tests.detection.stopping import signal_in
from tests.detection.test_stage import Killed, kill_at

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

FOLDER = "configs/detection/detectron2"
RETINANET = f"{FOLDER}/digit_scenes_retinanet_fp_instant_test.yaml"
SGDT = f"{FOLDER}/digit_scenes_retinanet_sgdt_instant_test.yaml"
SETS = ("DATASETS.TRAIN", ("digit_scenes_job",), "DATASETS.TEST", ("digit_scenes_job",))


def register_scenes():
    from lowbit.detection.datasets.catalog import load_detection
    from lowbit.detection.datasets.digit_scenes import Layout
    from lowbit.detection.with_detectron2.catalog import register

    layout = Layout(64, (1, 2), (16, 32))
    register("digit_scenes_job", lambda: load_detection("digit-scenes", "train", 6, layout=layout))


@pytest.fixture(autouse=True)
def tiny_scenes():
    register_scenes()


def job(config, *opts, **fields) -> Recipe:
    return Recipe(config=config, opts=(*SETS, *opts), device="cpu", **fields)


@pytest.fixture(scope="module")
def detector(backbone_file, tmp_path_factory):
    """A RetinaNet in full precision, trained by its configuration."""
    register_scenes()
    folder = tmp_path_factory.mktemp("fp")
    recipe = job(RETINANET, "MODEL.LOWBIT.FPN_RELU", True, checkpoint=backbone_file)
    return folder, run(recipe, folder)


def test_a_configuration_gives_a_result_like_a_recipes(detector):
    folder, result = detector
    assert json.loads(json.dumps(result)) == result
    assert [m["metric"] for m in result["measurements"]] == ["AP", "AP50", "AP75", "APs"]
    for measurement in result["measurements"]:
        assert (measurement["n"], measurement["precision"]) == (6, "FP")
    assert set(result["costs"]) == {"FP"} and result["costs"]["FP"]["bit_operations"] > 0
    assert result["checkpoint"]["architecture"] == "resnet10_slim"
    artifacts = result["artifacts"]
    assert (artifacts["checkpoint"], artifacts["detections"]) == ("detector.pth", "detections.json")
    assert "pictures/picture_1.jpg" in artifacts.values()
    assert all((folder / path).is_file() for path in artifacts.values())
    assert [row["iteration"] for row in result["details"]["curve"]] == [10]
    assert "MAX_ITER: 10" in result["details"]["config"]


def test_ap_on_the_way_is_a_measurement_and_part_of_the_identity(detector, tmp_path):
    file = str(detector[0] / "detector.pth")
    asked = job(SGDT, "TEST.EVAL_AT", (3, 10), detector=file)
    result = run(asked, tmp_path)
    scores = {row["iteration"]: row["AP"] for row in result["details"]["curve"]}
    measured = {m["metric"]: m for m in result["measurements"]}
    assert measured["AP@3"] == {
        "metric": "AP@3", "value": scores[3], "unit": "%", "n": 6, "precision": "4w4a",
        "split": "test",
    }  # fmt: skip
    assert not {"AP@5", "AP@10"} & set(measured)  # its period's, and the end's, which is AP
    assert identity(asked)["config_sha256"] != identity(job(SGDT))["config_sha256"]


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


RUN = """
import os, sys
from pathlib import Path
from lowbit.detection import run
from tests.detection.stopping import SEEDED_BY
from tests.detection.with_detectron2.test_config_job import RETINANET, job, register_scenes
from unittest import mock
folder, backbone, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
register_scenes()
from lowbit.detection.with_detectron2 import hooks
plain = hooks.seed_everything
def seed(number, iteration):
    plain(number, iteration)
    if iteration == last:
        os._exit(9)
recipe = job(RETINANET, "SOLVER.CHECKPOINT_PERIOD", 4, "SOLVER.MAX_ITER", 20, "SOLVER.STEPS", (15,),
             checkpoint=backbone)
with mock.patch(SEEDED_BY["detectron2"], seed):
    run(recipe, Path(folder))
"""


@pytest.mark.slow
def test_a_job_resumed_in_another_process_goes_on_bit_for_bit(backbone_file, tmp_path):
    """A process of its own for each attempt: what torch compiles is warm in none."""
    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder, last, code in ((0, -1, 0), (1, 10, 9), (1, 17, 9), (1, -1, 0)):
        folders[folder].mkdir(exist_ok=True)
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RUN, folders[folder], backbone_file, str(last)],
            capture_output=True,
            text=True,
        )
        assert child.returncode == code, child.stderr
    straight, killed = ((folder / "metrics.jsonl").read_text() for folder in folders)
    assert straight == killed
    states = [read_detector(f / "detector.pth", engine="detectron2")[0] for f in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_stopped_job_goes_on_bit_for_bit_with_its_curve(detector, tmp_path, monkeypatch):
    recipe = job(SGDT, detector=str(detector[0] / "detector.pth"))
    folders = [tmp_path / name for name in ("straight", "stopped")]
    for folder in folders:
        folder.mkdir()
    straight = run(recipe, folders[0])
    stops = (3, 5, 10)  # 5 is scored
    begun = signal_in(monkeypatch, "detectron2", stops)
    for stop in stops:
        with pytest.raises(Preempted, match=f"after iteration {stop} of 10; ") as caught:
            run(recipe, folders[1])
        assert caught.value.code == os.EX_TEMPFAIL
    resumed = run(recipe, folders[1])
    assert begun == list(range(1, 11))
    assert straight["measurements"] == resumed["measurements"]
    states = [read_detector(f / "detector.pth", engine="detectron2")[0] for f in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    lines = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("family", ["faster_rcnn", "faster_rcnn_C4", "mask_rcnn"])
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
    with pytest.raises(FileNotFoundError, match="There is no file nowhere"):
        identity(Recipe(config="nowhere.yaml"))
    with pytest.raises(ValueError, match="there is no data set 'coco_2018'"):
        identity(Recipe(config=coco, opts=("DATASETS.TRAIN", ("coco_2018",))))
    with pytest.raises(ValueError, match="evaluated on 2 sets"):
        identity(Recipe(config=coco, opts=("DATASETS.TEST", ("coco_2017_val", "coco_2017_train"))))


def test_a_job_without_its_data_is_planned_at_its_precision():
    from lowbit.benchmark.planning.job import Job, Label

    config = f"{FOLDER}/retinanet_R_18_FPN_90k_sgdt_w3a3.yaml"
    job = Job.plan("detection", Recipe(config=config), inputs={}, label=Label("x"))
    assert "instances_train2017.json" in job.missing
    assert (job.precisions, job.identity["dataset"]) == (("3w3a",), "coco_2017_val")


def test_another_relu_than_the_detectors_is_refused(detector):
    file = str(detector[0] / "detector.pth")
    with pytest.raises(ValueError, match="trained with fpn_relu true, but false was requested"):
        run(job(RETINANET, "MODEL.QUANT.ENABLED", True, detector=file), detector[0] / "other")


def test_kept_detections_give_the_numbers_again(detector):
    from lowbit.detection.rescore import rescore

    folder, result = detector
    recipe, files = job(RETINANET), {"FP": folder / result["artifacts"]["detections"]}
    found = rescore(recipe, files, identity=identity(recipe))
    again = {m["metric"]: (m["value"], m["n"]) for m in found}
    assert again == {m["metric"]: (m["value"], m["n"]) for m in result["measurements"]}


@pytest.fixture
def voc(tmp_path):
    """Detectron2's way to register a VOC set, of two images."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc

    cows = [("cow", (x, y, x + 5, y + 5), 0) for x in (9, 19, 29) for y in (6, 14, 22)]
    objects = dict.fromkeys("ab", cows)  # about an anchor's size: something will be found
    folder = write_voc(tmp_path / "VOC", objects, {"trainval": ["a", "b"]})
    for file in (folder / "Annotations").iterdir():  # tags that Detectron2's evaluator asks for
        tags = "<pose>Left</pose><truncated>0</truncated><difficult>"
        file.write_text(file.read_text().replace("<difficult>", tags))
    register_pascal_voc("cows", str(folder), "trainval", 2007, ["cow"])
    MetadataCatalog.get("cows").evaluator_type = "pascal_voc"
    yield folder
    DatasetCatalog.remove("cows")
    MetadataCatalog.remove("cows")


@pytest.fixture
def seeded(tmp_path):
    """A backbone file of the same random weights every time: what it finds is no luck."""
    torch.manual_seed(0)
    path = tmp_path / "seeded.pth"
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "digits"})
    return str(path)


def run_and_rescore(name, classes, folder, **fields):
    """Run two iterations on a set; return recipe, detections, and both scores' values by metric."""
    from lowbit.detection.rescore import rescore

    sets = ("DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,), "SOLVER.MAX_ITER", 2)
    opts = (*sets, "SOLVER.STEPS", (1,), "MODEL.RETINANET.NUM_CLASSES", classes)
    opts += ("MODEL.RETINANET.SCORE_THRESH_TEST", 0.0)
    opts += ("INPUT.MIN_SIZE_TRAIN", (90,), "INPUT.MIN_SIZE_TEST", 90)
    recipe = Recipe(config=RETINANET, opts=opts, device="cpu", **fields)
    folder.mkdir()
    result = run(recipe, folder)
    assert result["artifacts"]["picture_1"] == "pictures/picture_1.jpg"
    files = {"FP": folder / result["artifacts"]["detections"]}
    found = rescore(recipe, files, identity=identity(recipe))
    with_interval = {m["metric"] for m in result["measurements"] if "low" in m}
    assert with_interval == {m["metric"] for m in found if "low" in m}
    said, again = ({m["metric"]: m["value"] for m in p} for p in (result["measurements"], found))
    return recipe, files, said, again


def test_a_set_that_detectron2_evaluates_as_cocos(seeded, tmp_path):
    boxes = [(x, y, 6, 6) for x in (8, 18, 28) for y in (5, 13, 21)]
    objects = [(image, category, box) for image in (7, 3) for category in (1, 5) for box in boxes]
    entries = [annotation(number, *found) for number, found in enumerate(objects, 1)]
    for part in ("train", "val"):
        write_coco(tmp_path / "herd", part, coco_content(entries))
    fields = {"checkpoint": seeded, "data_root": str(tmp_path)}
    *_, said, again = run_and_rescore("coco:herd/test", 2, tmp_path / "run", **fields)
    assert json.loads((tmp_path / "run" / "detections.json").read_text())
    assert again == pytest.approx(said, abs=1e-9)


def test_a_voc_set_of_detectron2s(voc, seeded, tmp_path):
    """Its annotations are in the job's identity, and its detections score the same again."""
    from lowbit.detection.rescore import rescore

    fields = {"checkpoint": seeded}
    recipe, files, said, again = run_and_rescore("cows", 1, tmp_path / "run", **fields)
    assert json.loads((tmp_path / "run" / "detections.json").read_text())
    assert {metric: again[metric] for metric in said} == pytest.approx(said, abs=1e-9)

    facts = identity(recipe)
    found = json.loads(files["FP"].read_text())
    names = json.loads(files["FP"].with_name("image_names.json").read_text())
    assert {type(d["image_id"]) for d in found} == {int} and set(names.values()) == {
        "a.jpg",
        "b.jpg",
    }
    earlier = [{**d, "image_id": names[str(d["image_id"])][0]} for d in found]  # "a" and "b"
    files["FP"].write_text(json.dumps(earlier))
    once_more = {m["metric"]: m["value"] for m in rescore(recipe, files, identity=facts)}
    assert once_more == pytest.approx(again, abs=1e-9)
    file = voc / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace("<xmin>9<", "<xmin>8<"))
    os.utime(file, ns=(0, 0))  # however fast this was
    assert identity(recipe)["split_sha256"] != facts["split_sha256"]
    with pytest.raises(ValueError, match="not those that the job was trained and scored on"):
        rescore(recipe, files, identity=facts)


def test_a_job_is_named_by_what_its_configuration_says(tmp_path):
    from lowbit.benchmark.planning.job import Job, Label

    def plan(recipe):
        return Job.plan("detection", recipe, inputs={}, label=Label("x"))

    copy = tmp_path / "renamed.yaml"
    copy.write_text(f"_BASE_: {Path(SGDT).resolve()}\n")
    first, same = plan(job(SGDT)), plan(job(str(copy), "OUTPUT_DIR", "x"))
    other = plan(job(SGDT, "SOLVER.LAMBDA", 0.5))
    assert first.problem is None and first.missing is None
    assert first.id == same.id != other.id
    assert first.question == same.question != other.question


YOLOV4 = f"{FOLDER}/digit_scenes_yolov4_fp_instant_test.yaml"


def test_yolov4_trains_and_resumes_by_its_configuration(backbone_file, tmp_path, monkeypatch):
    size = ("INPUT.MIN_SIZE_TRAIN", [64], "INPUT.MIN_SIZE_TEST", 64)
    recipe = job(YOLOV4, *size, checkpoint=backbone_file)
    folders = [tmp_path / name for name in ("straight", "killed")]
    for folder in folders:
        folder.mkdir()
    straight = run(recipe, folders[0])
    with monkeypatch.context() as patch:
        kill_at(patch, "detectron2", 8)
        with pytest.raises(Killed):
            run(recipe, folders[1])
    assert run(recipe, folders[1])["measurements"] == straight["measurements"]
    states = [read_detector(f / "detector.pth", engine="detectron2")[0] for f in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.anchors"][0], torch.tensor([12.0, 16.0]))  # k-means


def test_keys_of_yolov4_are_in_its_jobs_identity_alone(monkeypatch):
    """Other jobs keep the ids from before there was one."""
    from lowbit.detection.with_detectron2 import config_job

    for config, expected in ((RETINANET, set()), (YOLOV4, {"INPUT.MOSAIC", "MODEL.YOLOV4.KMEANS"})):
        keys = set(config_job._decisive(config_job.job_config(job(config))))
        assert keys & {"INPUT.MOSAIC", "MODEL.YOLOV4.KMEANS"} == expected
