"""What a job hands over: plain measurements that the kept detections give again."""

import json

import numpy as np
import pytest
import torch

from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.evaluation.detections_file import (
    read_detections,
    to_detections,
    write_detections,
)
from lowbit.detection.evaluation.measurements import keep, measure, spread_facts
from tests.detection.annotated_folders import write_voc
from tests.detection.scoring.annotated_sets import as_masks, pycocotools, random_set


def detect(images):
    return [
        detection
        for image_id, boxes, labels in zip(images.ids, images.boxes, images.labels, strict=True)
        for detection in to_detections(
            image_id, boxes + 1, torch.rand(len(boxes)), labels, images.category_ids
        )
    ]


@pytest.fixture
def farm(tmp_path):
    objects = {name: [("cow", (3, 3, 29, 27), 0)] for name in "abc"}
    write_voc(tmp_path / "farm", objects, {"train": ["a"], "test": ["b", "c"]})
    return load_detection("voc:farm", "test", root=tmp_path)


def test_measurements_are_every_overall_metric_in_plain_types(scenes):
    found = detect(scenes)
    measured = measure(scenes, found, precision="4w4a", engine="torchvision")
    expected = score(scenes.to_coco(), found, intervals=True)
    assert {m["metric"]: m["value"] for m in measured.measurements} == expected.overall
    assert measured.classes == {"AP": expected.classes}
    assert json.loads(json.dumps(measured[:2])) == [measured.measurements, measured.classes]
    np.testing.assert_equal(measured.halves, expected.halves)
    assert expected.spreads["AP"].low < expected.overall["AP"] < expected.spreads["AP"].high
    for m in measured.measurements:
        known = expected.spreads.get(m["metric"])
        facts = ("stderr", "low", "high", "interval", "warning")
        assert {name: m[name] for name in facts if name in m} == spread_facts(known)
        assert (m["unit"], m["n"], m["precision"], m["split"]) == ("%", 12, "4w4a", "train")


def test_vocs_metrics_are_not_the_torchvision_engines(farm):
    measured = measure(farm, detect(farm), precision="FP", engine="torchvision")
    assert not [m for m in measured.measurements if "voc" in m["metric"]]


def test_vocs_metrics_are_the_detectron2_engines(farm):
    measured = measure(farm, detect(farm), precision="FP", engine="detectron2")
    values = {m["metric"]: m["value"] for m in measured.measurements}
    assert values["AP50_voc07"] == pytest.approx(100) and 0 < values["AP_voc12"] < 100
    assert measured.classes["AP50_voc07"] == pytest.approx({"cow": 100})


def test_masks_are_measured_with_intervals_and_again_from_the_file(tmp_path):
    truth, found = as_masks(*random_set(1, images=30))
    pixels = torch.zeros(30, 3, 4, 4, dtype=torch.uint8)
    images = DetectionSet("set", "test", truth, pixels, "0" * 64, where=lambda *_: "")
    measured = measure(images, found, precision="FP", engine="detectron2")
    masks = {
        m["metric"].removesuffix("_mask"): m
        for m in measured.measurements
        if m["metric"].endswith("_mask")
    }
    expected = pycocotools(images.to_coco(), found, iou_type="segm").stats[:6]
    assert [m["value"] for m in masks.values()] == [100 * value for value in expected if value >= 0]
    assert masks["AP"]["low"] <= masks["AP"]["value"] <= masks["AP"]["high"]
    assert masks["AP"]["value"] != measured.measurements[0]["value"]  # the boxes'
    assert measured.classes.keys() == {"AP", "AP_mask"}
    kept = list(read_detections(tmp_path / write_detections(tmp_path, as_text(found))))
    again = measure(images, kept, precision="FP", engine="detectron2")
    assert again[:2] == measured[:2]
    assert again.halves.keys() == {m["metric"] for m in measured.measurements}
    np.testing.assert_equal(again.halves, measured.halves)
    some = [{k: v for k, v in d.items() if k != "segmentation"} for d in found[:1]] + found[1:]
    boxes = measure(images, some, precision="FP", engine="detectron2")
    assert boxes.classes == {"AP": measured.classes["AP"]}


def as_text(detections):
    """Write the masks' counts as text, as Detectron2 does for JSON."""
    return [
        {**d, "segmentation": {**d["segmentation"], "counts": d["segmentation"]["counts"].decode()}}
        for d in detections
    ]


def test_what_is_kept_gives_the_measurements_again(farm, tmp_path):
    found = detect(farm)
    artifacts = keep(tmp_path, farm, found, suffix="_3w3a")
    assert artifacts == {
        "detections_3w3a": "detections_3w3a.json",
        "image_names": "image_names.json",
        "picture_1_3w3a": "pictures/picture_1_3w3a.jpg",
        "picture_2_3w3a": "pictures/picture_2_3w3a.jpg",
    }
    assert all((tmp_path / path).is_file() for path in artifacts.values())
    kept = list(read_detections(tmp_path / artifacts["detections_3w3a"]))
    options = {"precision": "3w3a", "engine": "torchvision"}
    assert measure(farm, kept, **options)[:2] == measure(farm, found, **options)[:2]
