"""Jobs of one seed, paired by what they kept: predictions and detections, or their standard errors."""

import json

import pytest
import torch

from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import SCHEMA_VERSION, Result, write_result
from lowbit.benchmark.statistics.comparison import compare
from lowbit.benchmark.statistics.paired_image_tests import compare_halves
from lowbit.detection import Recipe
from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.evaluation.detections_file import to_detections, write_detections
from lowbit.detection.scoring.half_samples import draw_halves
from lowbit.detection.scoring.matching import match
from lowbit.detection.scoring.resampling import resample
from lowbit.detection.stage import identity, load_images
from lowbit.transfer.scoring.accuracy import accuracy
from lowbit.transfer.scoring.predictions_file import FILE, Predictions, write_predictions

LABELS = torch.arange(300) % 5
METRICS = ("top1", "mean_per_class")


def _result(folder, name, *, stage, recipe, facts, measurements, artifacts):
    result = Result.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "job_id": folder.name,
            "question": folder.name,
            "stage": stage,
            "protocol_version": 1,
            "status": "completed",
            "measurements": measurements,
            "precisions": sorted({m["precision"] for m in measurements}),
            "recipe": recipe,
            "inputs": {"checkpoint": {"path": "x", "sha256": name * 8, "job_id": None}},
            "identity": facts,
            "checkpoint": {"name": name},
            "artifacts": artifacts,
        }
    )
    write_result(folder, result)


def _classifier(runs, name, wrong, *, ids=None, said=None):
    """Write a finished probe that gets the images `wrong` wrong at 4w4a."""
    folder = runs / f"{name:0<12}"
    folder.mkdir(parents=True)
    predicted = LABELS.clone()
    predicted[wrong] = (predicted[wrong] + 1) % 5
    found = accuracy(predicted, LABELS, 5)
    part = Predictions(
        "test", torch.arange(300) if ids is None else ids, LABELS, {"4w4a": predicted}
    )
    write_predictions(
        folder / FILE, [part], dataset="digits", split_sha256="s", class_names=list("abcde")
    )
    measurements = [
        {
            "metric": metric, "value": getattr(found, metric) if said is None else said,
            "stderr": found.stderr(metric), "unit": "%", "n": 300, "precision": "4w4a",
            "split": "test",
        }
        for metric in METRICS
    ]  # fmt: skip
    facts = {"dataset": "digits", "protocol": "linear", "engine": "torch", "split_sha256": "s"}
    _result(
        folder, name, stage="transfer", recipe={"seed": 0}, facts=facts,
        measurements=measurements, artifacts={"predictions": FILE},
    )  # fmt: skip


def _compared(runs):
    return compare(normalize(load_frame(runs)), "a", "b", runs_dir=runs)


def test_networks_that_kept_their_predictions_are_paired_image_by_image(tmp_path):
    # B is wrong where A is and on 12 more images: apart by pairs, tied as two samples
    _classifier(tmp_path, "a", torch.arange(60))
    _classifier(tmp_path, "b", torch.arange(72))
    top1, per_class = (line.overall for line in _compared(tmp_path))
    assert (top1.metric, per_class.metric) == METRICS
    assert (top1.over, top1.n, top1.mean) == ("images", 300, pytest.approx(4.0))
    assert top1.p == pytest.approx(2 * 0.5**12) and top1.outcome == "a"
    assert top1.low > 0 and per_class.over == "images" and per_class.p < 0.01
    frame = normalize(load_frame(tmp_path))
    (unpaired, *_) = (line.overall for line in compare(frame, "a", "b"))
    assert (unpaired.over, unpaired.outcome) == ("images, unpaired", "tie")
    assert unpaired.low < 0 < unpaired.high


@pytest.mark.parametrize("fault", ["other images", "another number", "no file", "no table"])
def test_predictions_that_do_not_belong_are_not_used(tmp_path, fault, caplog):
    _classifier(tmp_path, "a", torch.arange(60))
    changes = {"other images": {"ids": torch.arange(1, 301)}, "another number": {"said": 70.0}}
    _classifier(tmp_path, "b", torch.arange(72), **changes.get(fault, {}))
    if fault == "no file":
        (tmp_path / f"{'b':0<12}" / FILE).unlink()
    if fault == "no table":
        (tmp_path / f"{'b':0<12}" / FILE).write_bytes(b"PAR0")
    assert _compared(tmp_path)[0].overall.over == "images, unpaired"
    assert ("was not used: " in caplog.text) == (fault in ("no file", "no table"))
    assert ("does not give the number" in caplog.text) == (fault == "another number")


def _detector(runs, name, recipe, images, moved):
    folder = runs / f"{name:0<12}"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    detections = []
    for image_id, boxes, labels in zip(images.ids, images.boxes, images.labels, strict=True):
        sure = torch.rand(len(boxes), generator=draw)
        off = moved * torch.randn(boxes.shape, generator=draw)
        detections += to_detections(image_id, boxes + off, sure, labels, images.category_ids)
    overall = score(images.to_coco(), detections).overall
    measurements = [
        {
            "metric": metric, "value": value, "unit": "%", "n": len(images), "precision": "FP",
            "split": "test", "stderr": 2.0,
        }
        for metric, value in overall.items()
    ]  # fmt: skip
    artifacts = {"detections": write_detections(folder, detections)}
    facts = json.loads(json.dumps(identity(recipe)))
    _result(
        folder, name, stage="detection", recipe=json.loads(recipe.model_dump_json()),
        facts=facts, measurements=measurements, artifacts=artifacts,
    )  # fmt: skip
    return detections


def test_detectors_that_kept_their_detections_share_the_halves_of_the_images(tmp_path):
    recipe = Recipe(
        image_size=64, train_images=2, calibration_images=2, test_images=20, digits_per_scene=(1, 3),
        digit_size=(16, 32), random_backbone=True, architecture="resnet10_slim",
        engine="torchvision", method="fp",
    )  # fmt: skip
    images = load_images(recipe, "test")
    found = {
        name: _detector(tmp_path, name, recipe, images, moved)
        for name, moved in (("a", 1.0), ("b", 2.5))
    }
    line = _compared(tmp_path)[0].overall
    assert (line.metric, line.over, line.n) == ("AP", "images", 20)
    halves = draw_halves(20)
    a, b = (resample(match(images.to_coco(), found[name]), halves)["AP"] for name in "ab")
    one, other = (score(images.to_coco(), found[name]).overall["AP"] for name in "ab")
    expected = compare_halves(one - other, a - b, 20)
    assert (line.low, line.high, line.p) == pytest.approx((expected.low, expected.high, expected.p))
    assert line.outcome == "a" and line.p < 0.05


def test_annotations_that_changed_leave_the_standard_errors(tmp_path, caplog):
    recipe = Recipe(
        image_size=64, train_images=2, calibration_images=2, test_images=4, random_backbone=True,
        architecture="resnet10_slim", engine="torchvision", method="fp",
    )  # fmt: skip
    images = load_images(recipe, "test")
    for name, moved in (("a", 1.0), ("b", 2.0)):
        _detector(tmp_path, name, recipe, images, moved)
        path = tmp_path / f"{name:0<12}" / "result.json"
        content = json.loads(path.read_text())
        content["identity"]["split_sha256"] = "0" * 64
        path.write_text(json.dumps(content))
    assert _compared(tmp_path)[0].overall.over == "images, unpaired"
    assert "not those that the job was trained and scored on" in caplog.text
