"""Average precision: a perfect detector has 100, none has 0, and pycocotools agrees in between."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.evaluation.average_precision import evaluate, score
from lowbit.detection.evaluation.detections_file import (
    DETECTIONS,
    read_detections,
    to_detections,
    write_detections,
)
from tests.detection.annotated_folders import annotation, coco_content, write_coco


def oracle(images):
    """Return the objects a set is trained on as detections."""
    return [
        detection
        for image_id, boxes, labels in zip(images.ids, images.boxes, images.labels, strict=True)
        for detection in to_detections(
            image_id, boxes, torch.ones(len(boxes)), labels, images.category_ids
        )
    ]


def one_object(area: float, **fields) -> dict:
    side = area**0.5
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, side, side], "area": area}
    return {
        "info": {},
        "images": [{"id": 1, "width": 500, "height": 500, "file_name": "1"}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "absent"}],
        "annotations": [{**entry, "iscrowd": 0, **fields}],
    }


def test_ground_truth_as_detections_has_ap_100(scenes):
    scores = score(scenes.to_coco(), oracle(scenes))
    assert scores.overall == dict.fromkeys(("AP", "AP50", "AP75", "APs"), 100.0)
    labels = torch.cat(scenes.labels).unique().tolist()
    assert scores.classes == pytest.approx({str(label): 100.0 for label in labels})


def test_ground_truth_of_a_folder_with_crowds_and_gaps_in_its_ids_has_ap_100(tmp_path):
    boxes = [
        annotation(11, 7, 5, [2, 3, 10, 8]),
        annotation(12, 3, 1, [0, 0, 4, 4]),
        annotation(13, 3, 5, [5.5, 6.25, 10, 10]),
        annotation(14, 3, 1, [10, 5, 20, 20], iscrowd=1),
    ]
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, coco_content(boxes), images=False)
    images = load_detection("coco:pets", "test", root=tmp_path)
    scores = score(images.to_coco(), oracle(images))
    assert scores.overall["AP"] == 100
    assert scores.classes == pytest.approx({"cat": 100.0, "dog": 100.0})
    # A detection inside the crowd is ignored, however sure it is; without the crowd it is a miss.
    box = torch.tensor([[11.0, 6, 18, 18]])
    inside = to_detections(3, box, torch.tensor([2.0]), torch.tensor([0]), (1, 5))
    truth = images.to_coco()
    assert evaluate(truth, oracle(images) + inside)["AP"] == 100
    without = {**truth, "annotations": [a for a in truth["annotations"] if not a["iscrowd"]]}
    assert evaluate(without, oracle(images) + inside)["AP"] == pytest.approx(75)


def test_ids_that_began_at_0_are_not_taken_for_misses(tmp_path):
    content = coco_content([annotation(0, 7, 5, [2, 3, 10, 8]), annotation(1, 3, 5, [2, 3, 10, 8])])
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, content, images=False)
    images = load_detection("coco:pets", "test", root=tmp_path)
    assert evaluate(content, oracle(images))["AP"] < 60  # what pycocotools makes of it
    assert evaluate(images.to_coco(), oracle(images))["AP"] == 100


def test_a_class_off_by_one_has_ap_0(scenes):
    wrong = [{**d, "category_id": d["category_id"] % 10 + 1} for d in oracle(scenes)]
    assert evaluate(scenes.to_coco(), wrong)["AP50"] < 10


@pytest.mark.parametrize(
    ("area", "name"), [(31.0**2, "APs"), (33.0**2, "APm"), (95.0**2, "APm"), (97.0**2, "APl")]
)
def test_one_box_of_known_overlap(area, name):
    """IoU .60 passes the thresholds .50, .55 and .60 of ten: AP 30, AP50 100, AP75 0."""
    side = area**0.5
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, side, 0.601 * side], "score": 0.9}]
    scores = score(one_object(area), found)
    assert scores.overall == pytest.approx({"AP": 30.0, "AP50": 100.0, "AP75": 0.0, name: 30.0})
    assert scores.classes == pytest.approx({"one": 30.0})  # a class without objects has none


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
    ours = score(scenes.to_coco(), detections)
    assert list(ours.overall.values()) == [100 * value for value in run.stats[:6] if value >= 0]
    assert 0 < ours.overall["AP"] < 100
    # AP is the mean over classes, and over thresholds.
    assert sum(ours.classes.values()) / len(ours.classes) == pytest.approx(ours.overall["AP"])


def test_no_detection_is_0_and_the_output_is_quiet(scenes, capsys):
    scores = score(scenes.to_coco(), [])
    assert set(scores.overall.values()) == {0.0} == set(scores.classes.values())
    assert set(scores.overall) == {"AP", "AP50", "AP75", "APs"}
    evaluate(scenes.to_coco(), oracle(scenes))
    assert capsys.readouterr().out == ""


def test_arguments_are_left_as_they_were(scenes):
    truth, found = scenes.to_coco(), oracle(scenes)
    evaluate(truth, found)
    assert truth == scenes.to_coco() and found == oracle(scenes)


def test_images_without_objects_are_refused(scenes):
    with pytest.raises(ValueError, match="was not computed"):
        evaluate({**scenes.to_coco(), "annotations": []}, [])


def test_kept_detections_give_the_same_number_to_the_last_bit(scenes, tmp_path):
    generator = torch.Generator().manual_seed(0)
    found = [
        {
            **d,
            "score": torch.rand((), generator=generator).item(),
            "bbox": [x + 1 / 3 for x in d["bbox"]],
        }
        for d in oracle(scenes)
    ]
    assert write_detections(tmp_path, found) == DETECTIONS
    as_read = score(scenes.to_coco(), read_detections(tmp_path / DETECTIONS), intervals=True)
    written = score(scenes.to_coco(), found, intervals=True)
    assert as_read[:3] == written[:3]
    np.testing.assert_equal(as_read.halves, written.halves)
    kept = list(read_detections(tmp_path / DETECTIONS))
    assert kept == found
    assert evaluate(scenes.to_coco(), kept) == evaluate(scenes.to_coco(), found)
    (tmp_path / "truth.json").write_text(json.dumps(scenes.to_coco()))
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(tmp_path / "truth.json"))
        assert len(index.loadRes(str(tmp_path / DETECTIONS)).anns) == len(found)
