"""A real job's numbers, computed again from its predictions; and what was tampered with."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli.leaderboard import main
from lowbit.benchmark.executors import local
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.rescore import ON_THE_WAY, find_jobs, rescore
from lowbit.benchmark.results.result_file import RESULT
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.common import file_hash
from lowbit.detection import Recipe
from lowbit.detection.stage import load_images
from lowbit.transfer.scoring.predictions_file import read_predictions, write_predictions


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run one linear job on digits through the local executor; return the folder of runs."""
    folder = tmp_path_factory.mktemp("rescore")
    torch.manual_seed(0)
    save_backbone(folder / "net.pth", create_backbone("resnet10_slim"), {"method": "untrained"})
    recipe = {"dataset": "digits", "image_size": 16, "epochs": 3, "lr": 0.5}
    recipe |= {"precisions": ["FP", "4w4a"], "metrics": ["top1", "mean_per_class"]}
    (folder / "linear.yaml").write_text(yaml.safe_dump(recipe))
    suite = {
        "name": "one",
        "checkpoints": [{"name": "mine", "path": "net.pth", "architecture": "resnet10_slim"}],
        "transfer": [{"recipe": "linear.yaml"}],
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    schedule = Schedule(plan(folder / "suite.yaml"), folder / "runs")
    local.run(schedule, workers=1)
    return folder / "runs"


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the job's folder, to break."""
    ((folder, _),) = find_jobs(runs)
    return Path(shutil.copytree(folder, tmp_path / "runs" / folder.name))


def test_every_number_follows_from_the_predictions(runs):
    ((folder, result),) = find_jobs(runs)
    found = rescore(result, folder)
    assert len(found) == 2 * 2 * 2  # splits, precisions, metrics
    assert [line.problem for line in found] == [""] * 8
    frame = pd.read_parquet(folder / "predictions.parquet")
    for line in found:  # and by nothing of ours
        part = frame[frame["split"] == line.measurement.split]
        right = part[line.measurement.precision] == part["label"]
        by_hand = right.mean()
        if line.measurement.metric == "mean_per_class":
            by_hand = right.groupby(part["label"]).mean().mean()
        assert line.measurement.value == pytest.approx(100 * by_hand, abs=1e-9)


def _edit_value(folder, value):
    path = folder / RESULT
    mapping = json.loads(path.read_text())
    mapping["measurements"][0]["value"] = value
    path.write_text(json.dumps(mapping))


def test_a_number_that_does_not_follow_is_named(copy):
    _edit_value(copy, 99.5)
    ((folder, result),) = find_jobs(copy)  # by the job's own folder
    wrong = [line for line in rescore(result, folder) if line.problem]
    assert [(line.measurement.value, line.measurement.split) for line in wrong] == [(99.5, "test")]
    assert wrong[0].problem.startswith("differs by -")


def test_other_predictions_than_the_job_wrote_are_refused(copy):
    frame = pd.read_parquet(copy / "predictions.parquet")
    frame["FP"] = frame["label"]
    frame.to_parquet(copy / "predictions.parquet")
    file_hash._sha256.cache_clear()
    ((folder, result),) = find_jobs(copy)
    with pytest.raises(ValueError, match="not the file the job wrote"):
        rescore(result, folder)
    (copy / "predictions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="was not scored again"):
        rescore(result, folder)


def test_labels_are_those_of_the_data_set(copy):
    ((folder, result),) = find_jobs(copy)
    assert not any(line.problem for line in rescore(result, folder, data_root=copy))
    parts, facts = read_predictions(copy / "predictions.parquet")
    parts[0].labels[0] = (parts[0].labels[0] + 1) % 10
    names = facts.pop("classes")
    write_predictions(copy / "predictions.parquet", parts, class_names=names, **facts)
    mapping = json.loads((copy / RESULT).read_text())  # one who forges labels forges the hash too
    file_hash._sha256.cache_clear()
    digest = file_hash.file_sha256(copy / "predictions.parquet")
    mapping["artifact_sha256"]["predictions"] = digest
    (copy / RESULT).write_text(json.dumps(mapping))
    ((folder, result),) = find_jobs(copy)
    with pytest.raises(ValueError, match="other images or labels than test of digits"):
        rescore(result, folder, data_root=copy)


def test_an_earlier_versions_interval_is_no_contradiction(copy, capsys):
    mapping = json.loads((copy / RESULT).read_text())
    for measurement in mapping["measurements"]:
        del measurement["interval"]
        measurement["low"] -= 0.3
    (copy / RESULT).write_text(json.dumps(mapping))
    assert main(["rescore", str(copy)]) == 0
    assert "its interval is an earlier version's" in capsys.readouterr().out
    mapping["measurements"][0]["value"] += 1
    mapping["measurements"][1]["interval"] = "halves"
    (copy / RESULT).write_text(json.dumps(mapping))
    assert main(["rescore", str(copy)]) == 1
    said = capsys.readouterr().out
    assert "differs by -1.0000" in said and "its interval is wilson" in said


@pytest.fixture(scope="module")
def detections(tmp_path_factory):
    """Run a detector from random weights, and it calibrated; return the folder of runs."""
    folder = tmp_path_factory.mktemp("detections")
    tiny = {"image_size": 64, "digits_per_scene": [1, 2], "digit_size": [16, 32], "device": "cpu"}
    tiny |= {"train_images": 8, "test_images": 6, "iterations": 2, "batch_size": 2}
    tiny |= {"warmup_iterations": 0, "calibration_images": 4, "engine": "torchvision"}
    fp = {**tiny, "random_backbone": True, "architecture": "resnet10_slim", "evaluate_at": [1]}
    ptq = {**tiny, "method": "ptq", "precisions": ["FP", "8w8a"]}
    (folder / "fp.yaml").write_text(yaml.safe_dump(fp))
    (folder / "ptq.yaml").write_text(yaml.safe_dump(ptq))
    entries = [{"id": "fp", "recipe": "fp.yaml"}, {"recipe": "ptq.yaml", "detector": "fp"}]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": "two", "detection": entries}))
    local.run(Schedule(plan(folder / "suite.yaml"), folder / "runs"), workers=1)
    return folder / "runs"


def test_every_number_follows_from_the_detections(detections):
    jobs = {result.recipe["method"]: (folder, result) for folder, result in find_jobs(detections)}
    for method, precisions in (("fp", {"FP"}), ("ptq", {"FP", "8w8a"})):
        folder, result = jobs[method]
        found = rescore(result, folder)
        assert {line.measurement.precision for line in found} == precisions
        assert len(found) == len(result.measurements) >= 3 * len(precisions)
        said = {line.measurement.metric: line.problem for line in found if line.problem}
        assert said == ({"AP@1": ON_THE_WAY} if method == "fp" else {})


def test_detections_are_scored_in_earnest(detections, tmp_path, capsys):
    ((folder, result),) = [
        found for found in find_jobs(detections) if found[1].recipe["method"] == "fp"
    ]
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    images = load_images(Recipe(**result.recipe), "test").to_coco()
    perfect = [{**a, "score": 1.0} for a in images["annotations"]]
    (copy / "detections.json").write_text(json.dumps(perfect))
    assert main(["rescore", str(copy)]) == 1  # other detections than the job's
    assert "not the file the job wrote" in capsys.readouterr().err
    mapping = json.loads((copy / RESULT).read_text())
    mapping["artifact_sha256"]["detections"] = file_hash.file_sha256(copy / "detections.json")
    (copy / RESULT).write_text(json.dumps(mapping))
    assert main(["rescore", str(copy)]) == 1
    assert "scored again 100.0000 (differs by +" in capsys.readouterr().out
    mapping["identity"]["split_sha256"] = "0" * 64
    (copy / RESULT).write_text(json.dumps(mapping))
    assert main(["rescore", str(copy)]) == 1
    assert "not those that the job was trained and scored on" in capsys.readouterr().err
    (copy / "detections.json").unlink()
    assert main(["rescore", str(copy)]) == 1
    assert "was not scored again" in capsys.readouterr().err


def test_command_rescore_counts_and_exits_1_where_a_number_differs(copy, tmp_path, capsys):
    assert main(["rescore", str(copy.parent)]) == 0
    assert "mine: 8 of 8 numbers follow from the predictions" in capsys.readouterr().out
    _edit_value(copy, 99.5)
    assert main(["rescore", str(copy)]) == 1
    output = capsys.readouterr().out
    assert "7 of 8" in output
    assert "top1 at FP on test: the result says 99.5000" in output
    (tmp_path / "empty").mkdir()
    assert main(["rescore", str(tmp_path / "empty")]) == 1
    assert "holds no finished job with predictions" in capsys.readouterr().err
