"""The detection command line: recipes, Detectron2 configurations, and what either refuses."""

import json
import re
from pathlib import Path

import pytest

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli.single_jobs import detect
from tests.detection.annotated_folders import annotation, coco_content, write_coco, write_voc

ROOT = Path(__file__).parents[4]
RECIPE = """
name: tiny
engine: torchvision
image_size: 64
train_images: 8
test_images: 4
digits_per_scene: [1, 2]
digit_size: [16, 32]
calibration_images: 4
iterations: 4
batch_size: 2
lr: 1e-2
device: cpu
"""


@pytest.fixture
def words(tmp_path):
    """Words that train the tiny recipe into tmp_path/fp."""
    backbone = tmp_path / "backbone.pth"
    save_backbone(
        backbone, create_backbone("resnet10_slim"), {"method": "untrained", "data": "digits"}
    )
    (tmp_path / "tiny.yaml").write_text(RECIPE + f"checkpoint: {backbone}\n")
    return ["--config-file", str(tmp_path / "tiny.yaml"), "--output-dir", str(tmp_path / "fp")]


def lsq(words, tmp_path):
    out = ["--output-dir", str(tmp_path / "lsq")]
    detector = ["detector", str(tmp_path / "fp" / "detector.pth")]
    return [*words[:2], *out], ["method", "lsq", "precision", "4w4a", *detector]


def test_a_recipe_in_full_precision_then_quantized_then_evaluated(words, tmp_path, capsys):
    assert detect.main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2].split() == ["AP", "AP50", "AP75", "APs"] and len(out[-1].split()) == 4
    outcome = json.loads((tmp_path / "fp" / "measurements.json").read_text())
    assert outcome["recipe"]["iterations"] == 4 and len(outcome["measurements"]) == 4

    options, keys = lsq(words, tmp_path)
    assert detect.main([*options, *keys]) == 0
    trained = capsys.readouterr().out.splitlines()[-1]
    assert detect.main([*options, "--eval-only", *keys]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained
    assert detect.main([*options, "--eval-only"]) == 1
    assert "holds a detector at 4w4a, but the recipe has FP" in capsys.readouterr().err


def test_an_earlier_run_is_kept_unless_resumed(words, capsys):
    assert detect.main(words) == 0
    assert detect.main(words) == 1
    assert "nothing was trained. Add --resume" in capsys.readouterr().err
    assert detect.main([*words, "--resume"]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["itterations", "3"], "iterations"),
        (["method", "lsq", "precision", "4w4a"], "its detector.pth: detector PATH"),
        (["--num-gpus", "2"], "a recipe runs in one process"),
        (["--eval-only"], "there is no detector file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, capsys, more, told):
    flags = [word for word in more if word.startswith("--") or word == "2"]
    assert detect.main([*words, *flags, *[w for w in more if w not in flags]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and "nothing was" in error


def refused_folder(tmp_path):
    """Write voc:farm with a corner of 0, and coco:pets with a text as a width, in both splits."""
    objects = {name: [("cat", (0, 2, 11, 12), 0)] for name in "ab"}
    write_voc(tmp_path / "farm", objects, {"train": ["a"], "test": ["b"]})
    content = coco_content([annotation(1, 7, 5, [2, 3, 10, 8])], images=(7,))
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, content)
    content["images"][0]["width"] = "40"
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, content, images=False)
    return {
        "coco:pets": r'instances_\w+\.json:\d+: entry 1 of images \(id 7\): width is "40"',
        "voc:farm": r"[ab]\.xml:3: annotation 1: a corner of 0",
    }


@pytest.mark.parametrize("mode", [[], ["--eval-only"]])
def test_annotations_are_checked_before_anything_runs(words, tmp_path, capsys, mode):
    for dataset, told in refused_folder(tmp_path).items():
        keys = ["dataset", dataset, "data_root", str(tmp_path)]
        keys += ["train_images", "null", "test_images", "null"]
        assert detect.main([*words, *mode, *keys]) == 1
        assert re.search(told, capsys.readouterr().err)
        assert not (tmp_path / "fp" / "metrics.jsonl").exists()


@pytest.mark.detectron2
@pytest.mark.parametrize("mode", [[], ["--eval-only"]])
def test_a_configurations_sets_are_checked_before_anything_runs(
    tmp_path, capsys, monkeypatch, mode
):
    file = ROOT / "configs/detection/detectron2/digit_scenes_retinanet_fp_instant_test.yaml"
    words = ["--config-file", str(file), "--output-dir", str(tmp_path / "out"), *mode]
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path))
    for dataset, told in refused_folder(tmp_path).items():
        sets = ["DATASETS.TRAIN", f"('{dataset}/train',)", "DATASETS.TEST", f"('{dataset}/test',)"]
        assert detect.main([*words, *sets, "MODEL.LOWBIT.CHECKPOINT", "none.pth"]) == 1
        assert re.search(told, capsys.readouterr().err)
    for base, told in (
        ("0", r"names no file|no detector file"),
        ("2", r"VOC_BASE is 2; nothing was"),
    ):
        forget_named_sets()
        assert detect.main([*words, *sets, "DATASETS.VOC_BASE", base]) == 1
        assert re.search(told, capsys.readouterr().err)  # not the corners
    forget_named_sets()


def forget_named_sets():
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name in [name for name in DatasetCatalog.list() if "/" in name]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_configurations_are_told_from_recipes_by_their_keys():
    folder = ROOT / "configs" / "detection"
    assert not detect.is_detectron2_config(folder / "digit_scenes_retinanet_fp.yaml")
    files = list((folder / "detectron2").glob("*.yaml"))
    assert files and all(detect.is_detectron2_config(file) for file in files)


def test_a_configuration_without_detectron2_is_told_how_to_install_it(capsys, monkeypatch):
    file = ROOT / "configs" / "detection" / "detectron2" / "retinanet_R_18_FPN_90k_fp.yaml"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert detect.main(["--config-file", str(file)]) == 1
    assert "pip install --no-build-isolation" in capsys.readouterr().err


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (
            ["MODEL.LOWBITS.NORM", "BN"],
            "'MODEL.LOWBIT.NORM' or 'MODEL.LOWBIT.RANDOM'? Keys are Detectron2's",
        ),
        (["SOLVER.MAX_ITERS", "3"], "Did you mean 'SOLVER.MAX_ITER'"),
        (["SOLVER.MAX_ITER"], "nothing was trained. They come in pairs, KEY VALUE"),
    ],
)
def test_a_key_that_does_not_fit_a_configuration_is_refused(tmp_path, capsys, opts, told):
    file = ROOT / "configs/detection/detectron2/digit_scenes_retinanet_fp_instant_test.yaml"
    words = ["--config-file", str(file), "--output-dir", str(tmp_path), *opts]
    assert detect.main(words) == 1
    assert told in capsys.readouterr().err


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors
def test_the_instant_test_trains_quantizes_and_evaluates(words, tmp_path, capsys):
    file = ROOT / "configs/detection/detectron2/digit_scenes_retinanet_fp_instant_test.yaml"
    small = ["DATASETS.TEST", "('digit_scenes_tiny',)", "DATASETS.TRAIN", "('digit_scenes_tiny',)"]
    register_tiny_scenes()
    run = ["--config-file", str(file), "--output-dir", str(tmp_path / "fp")]
    start = ["MODEL.LOWBIT.CHECKPOINT", str(tmp_path / "backbone.pth")]
    assert detect.main([*run, *small, *start]) == 0
    assert capsys.readouterr().out.splitlines()[-2].split()[:3] == ["AP", "AP50", "AP75"]
    lines = (tmp_path / "fp" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [10, 10]  # losses, scores

    run[-1] = str(tmp_path / "sgdt")
    start = ["MODEL.LOWBIT.DETECTOR", str(tmp_path / "fp" / "detector.pth")]
    quant = ["MODEL.QUANT.ENABLED", "True", "MODEL.QUANT.POLICY", "tr", "SOLVER.OPTIMIZER", "SGDT"]
    quant += ["MODEL.QUANT.CALIBRATION_IMAGES", "4"]
    assert detect.main([*run, *small, *start, *quant]) == 0
    trained = capsys.readouterr().out.splitlines()[-1]

    start[-1] = str(tmp_path / "sgdt" / "detector.pth")
    assert detect.main([*run, "--eval-only", *small, *start, *quant]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained
    assert detect.main([*run, "--eval-only", *small, *start]) == 1
    assert "holds a detector at 4w4a" in capsys.readouterr().err


def register_tiny_scenes():
    from lowbit.detection.datasets.catalog import load_detection
    from lowbit.detection.datasets.digit_scenes import Layout
    from lowbit.detection.with_detectron2.catalog import register

    layout = Layout(64, (1, 2), (16, 32))
    register("digit_scenes_tiny", lambda: load_detection("digit-scenes", "train", 6, layout=layout))
