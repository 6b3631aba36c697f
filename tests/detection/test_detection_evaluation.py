"""Average precision: a perfect detector has 100, none has 0, and pycocotools agrees in between."""

import contextlib
import io
import json

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.evaluation import evaluate, to_detections


def oracle(scenes):
    return [
        detection
        for image_id, (boxes, labels) in enumerate(zip(scenes.boxes, scenes.labels, strict=True), 1)
        for detection in to_detections(image_id, boxes, torch.ones(len(boxes)), labels)
    ]


def test_ground_truth_as_detections_has_ap_100(scenes):
    scores = evaluate(scenes.to_coco(), oracle(scenes))
    assert scores == {"AP": 100.0, "AP50": 100.0, "AP75": 100.0}


def test_a_class_off_by_one_has_ap_0(scenes):
    wrong = [{**d, "category_id": d["category_id"] % 10 + 1} for d in oracle(scenes)]
    assert evaluate(scenes.to_coco(), wrong)["AP50"] < 10


def test_one_box_of_known_overlap():
    """IoU 60/100 passes the thresholds .50, .55 and .60 of ten: AP 30, AP50 100, AP75 0."""
    truth = {
        "info": {},
        "images": [{"id": 1, "width": 50, "height": 50, "file_name": "1"}],
        "categories": [{"id": 1, "name": "0"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, 0, 10, 10],
                "area": 100,
                "iscrowd": 0,
            }
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 6], "score": 0.9}]
    assert evaluate(truth, found) == pytest.approx({"AP": 30.0, "AP50": 100.0, "AP75": 0.0})


def test_pycocotools_from_files_says_the_same(scenes, tmp_path):
    generator = torch.Generator().manual_seed(0)
    detections = []
    for image_id, (boxes, labels) in enumerate(zip(scenes.boxes, scenes.labels, strict=True), 1):
        moved = boxes + 3 * torch.randn(boxes.shape, generator=generator)
        scores = torch.rand(len(boxes), generator=generator)
        detections += to_detections(image_id, moved, scores, labels)
    (tmp_path / "truth.json").write_text(json.dumps(scenes.to_coco()))
    (tmp_path / "found.json").write_text(json.dumps(detections))
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(tmp_path / "truth.json"))
        run = COCOeval(index, index.loadRes(str(tmp_path / "found.json")), "bbox")
        run.evaluate(), run.accumulate(), run.summarize()
    ours = evaluate(scenes.to_coco(), detections)
    assert list(ours.values()) == [100 * value for value in run.stats[:3]]
    assert 0 < ours["AP"] < 100


def test_no_detection_is_0_and_the_output_is_quiet(scenes, capsys):
    assert evaluate(scenes.to_coco(), []) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    evaluate(scenes.to_coco(), oracle(scenes))
    assert capsys.readouterr().out == ""


def test_arguments_are_left_as_they_were(scenes):
    truth, found = scenes.to_coco(), oracle(scenes)
    evaluate(truth, found)
    assert truth == scenes.to_coco() and found == oracle(scenes)


def test_images_without_objects_are_refused(scenes):
    with pytest.raises(ValueError, match="was not computed"):
        evaluate({**scenes.to_coco(), "annotations": []}, [])
