"""A job that runs by itself leaves what a suite's job leaves: it is rescored, compared and on the board."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from PIL import Image

from lowbit.benchmark.cli import leaderboard
from lowbit.benchmark.cli.single_jobs import detect, pretrain, transfer
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import Measurement, find_results, job_folder, read_result
from lowbit.data.image_sets import folder_manifest

PRETRAIN = {"dataset": "digits", "architecture": "resnet10_slim", "epochs": 0, "device": "cpu"}
KNN = {"dataset": "digits", "image_size": 16, "protocol": "knn", "precisions": ["FP", "4w4a"]}
SCENES = {"image_size": 64, "digits_per_scene": [1, 2], "digit_size": [16, 32], "device": "cpu"}
SCENES |= {"train_images": 4, "test_images": 4, "iterations": 1, "batch_size": 2}
SCENES |= {"warmup_iterations": 0, "calibration_images": 4, "engine": "torchvision"}
RECIPES = {
    "untrained": PRETRAIN | {"image_size": 16},
    "knn": KNN,
    "fp": SCENES,
    "ptq": SCENES | {"method": "ptq", "precisions": ["8w8a"]},
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The folder of a pretraining, a classification and two detection jobs, each run by its command."""
    folder = tmp_path_factory.mktemp("single")
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    backbone = ["checkpoint", str(folder / "output/untrained/checkpoint.pth")]
    detector = ["detector", str(folder / "output/fp/detector.pth")]
    for command, name, words in (
        (pretrain, "untrained", []),
        (transfer, "knn", backbone),
        (detect, "fp", backbone),
        (detect, "ptq", detector),
    ):
        options = ["--config-file", str(folder / f"{name}.yaml")]
        options += ["--output-dir", str(folder / "output" / name)]
        assert command.main([*options, *words]) == 0
    return folder / "output"


def test_the_result_is_that_of_the_same_job_in_a_suite(output):
    suite = {
        "name": "same",
        "checkpoints": [{"name": "untrained", "pretrain": "untrained.yaml"}],
        "transfer": [{"recipe": "knn.yaml"}],
        "detection": [
            {"id": "fp", "recipe": "fp.yaml"},
            {"recipe": "ptq.yaml", "detector": "fp"},
        ],
    }
    path = output.parent / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    results = {result.job_id: result for result in find_results(output)}
    assert results.keys() == plan(path).jobs.keys()
    assert {result.checkpoint.name for result in results.values()} == {"untrained"}
    measured = json.loads((output / "knn/measurements.json").read_text())["measurements"]
    knn = read_result(output / "knn")
    assert knn.measurements == tuple(map(Measurement.model_validate, measured))
    assert knn.status == "completed" and knn.seconds > 0 and knn.device == "cpu"


@pytest.mark.parametrize(("name", "kept"), [("knn", "predictions"), ("fp", "detections")])
def test_it_is_scored_again_by_its_folder(output, name, kept, capsys):
    assert leaderboard.main(["rescore", str(output / name)]) == 0
    assert f"numbers follow from the {kept}" in capsys.readouterr().out


def test_a_folder_of_them_is_scored_again_and_has_a_board(output, capsys):
    assert leaderboard.main(["rescore", str(output)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert leaderboard.main(["build", str(output)]) == 0
    board = pd.read_csv(output / "leaderboard/results.csv")
    found = board[board["split"] == "test"]
    assert set(found["checkpoint"]) == {"untrained"}
    assert set(found["task"]) == {"classification", "detection"}
    assert "is not a valid result" not in capsys.readouterr().err


def test_a_number_that_was_edited_is_found(output, tmp_path, capsys):
    folder = shutil.copytree(output / "knn", tmp_path / "renamed")
    mapping = json.loads((folder / "result.json").read_text())
    mapping["measurements"][0]["value"] += 1
    (folder / "result.json").write_text(json.dumps(mapping))
    assert leaderboard.main(["rescore", str(folder)]) == 1
    assert "differs by" in capsys.readouterr().out


def test_a_copy_of_a_job_counts_once(output, tmp_path):
    job_id = read_result(output / "knn").job_id
    for name in ("a copy", job_id, "knn"):
        shutil.copytree(output / "knn", tmp_path / name)
    frame = load_frame(tmp_path)
    assert len(frame) == len(read_result(output / "knn").measurements)
    assert [result.job_id for result in find_results(tmp_path)] == [job_id]
    assert job_folder(tmp_path, job_id).name == job_id
    assert job_folder(output, job_id).name == "knn"


def test_files_of_no_job_are_named_after_themselves(output, tmp_path, capsys):
    shutil.copy(output / "untrained/checkpoint.pth", tmp_path / "my-ssl.v2.pth.tar")
    words = [
        "--config-file",
        str(output.parent / "knn.yaml"),
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert transfer.main([*words, "checkpoint", str(tmp_path / "my-ssl.v2.pth.tar")]) == 0
    result = read_result(tmp_path / "out")
    assert result.checkpoint.name == "my-ssl.v2" and result.inputs["checkpoint"].job_id is None


def test_a_job_looks_once_at_the_files_of_its_folder(output, tmp_path, monkeypatch):
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "birds" / split / name).mkdir(parents=True)
            for i in range(12):
                image = Image.new("L", (8, 8), 100 * label + i)
                image.save(tmp_path / "birds" / split / name / f"{i}.png")
    looks, look = [], folder_manifest.look
    monkeypatch.setattr(folder_manifest, "look", lambda *args: looks.append(args) or look(*args))
    recipe = tmp_path / "knn.yaml"
    recipe.write_text(yaml.safe_dump(KNN | {"dataset": "folder:birds"}))
    words = ["data_root", str(tmp_path), "checkpoint", str(output / "untrained/checkpoint.pth")]
    words = ["--config-file", str(recipe), "--output-dir", str(tmp_path / "job"), *words]
    assert transfer.main(words) == 0
    assert len(looks) == 1
