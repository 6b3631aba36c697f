"""Pictures: objects left, detections right, of images that depend on the set alone."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from lowbit.detection.evaluation.detections_file import to_detections
from lowbit.detection.evaluation.pictures import draw_beside, draw_pictures


@pytest.fixture
def found(scenes):
    """Every object but the first of each image, and one box of low score over everything."""
    detections = []
    for image_id, boxes, labels in zip(scenes.ids, scenes.boxes, scenes.labels, strict=True):
        detections += to_detections(image_id, boxes[1:], torch.ones(len(boxes) - 1), labels[1:])
        everything = torch.tensor([[0.0, 0, 64, 64]])
        detections += to_detections(image_id, everything, torch.tensor([0.2]), labels[:1])
    return detections


def test_pictures_are_files_by_artifact_name(scenes, found, tmp_path):
    paths = draw_pictures(tmp_path, scenes, found, count=3)
    assert paths == {f"picture_{n}": f"pictures/picture_{n}.jpg" for n in (1, 2, 3)}
    with Image.open(tmp_path / paths["picture_2"]) as picture:
        assert picture.size == (2 * 384 + 8, 384)  # enlarged: 64 pixels hold no label
    again = draw_pictures(tmp_path, scenes, [], count=3, suffix="_4w4a")
    assert again["picture_1_4w4a"] == "pictures/picture_1_4w4a.jpg"
    with Image.open(tmp_path / paths["picture_1"]) as first:
        left = pil_to_tensor(first.crop((0, 0, 384, 384))).float()
    with Image.open(tmp_path / again["picture_1_4w4a"]) as bare:
        same = pil_to_tensor(bare.crop((0, 0, 384, 384))).float()
    assert (left - same).abs().mean() < 2  # the same image, whatever was detected


def test_fewer_images_than_asked_for_are_all_drawn(scenes, found, tmp_path):
    assert len(draw_pictures(tmp_path, scenes, found, count=99)) == len(scenes)


def test_truth_is_left_and_detections_of_enough_score_are_right(scenes):
    """A frame is drawn where the box is, and nowhere else."""
    objects = [{"bbox": [8.0, 8.0, 20.0, 20.0], "category_id": 1}]
    found = [{"bbox": [40.0, 30.0, 16.0, 16.0], "category_id": 1, "score": 0.9}]
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    picture = draw_beside(image, objects, found, scenes)
    drawn = (picture != 128).any(0)
    left, right = drawn[:, :384], drawn[:, 392:]
    for half, (x, y, side) in ((left, (8, 8, 20)), (right, (40, 30, 16))):
        rows, columns = half.any(1).nonzero()[[0, -1], 0], half.any(0).nonzero()[[0, -1], 0]
        assert rows.tolist() == pytest.approx([6 * y, 6 * (y + side)], abs=2)
        assert columns.tolist() == pytest.approx([6 * x, 6 * (x + side)], abs=2)


def test_a_low_score_is_not_drawn(scenes, found, tmp_path):
    low = [d for d in found if d["score"] < 0.3]
    with_low = draw_pictures(tmp_path, scenes, low, count=1)
    content = (tmp_path / with_low["picture_1"]).read_bytes()
    draw_pictures(tmp_path, scenes, [], count=1)
    assert (tmp_path / with_low["picture_1"]).read_bytes() == content
    draw_pictures(tmp_path, scenes, low, count=1, threshold=0.1)
    assert (tmp_path / with_low["picture_1"]).read_bytes() != content
