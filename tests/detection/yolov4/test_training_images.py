"""Training images: shares of mosaics and mirrored images, sizes, colours; one stream for both engines."""

import pytest
import torch

from lowbit.detection.with_torchvision.training_batches import take
from lowbit.detection.yolov4.mosaic import Sample
from lowbit.detection.yolov4.training_images import TrainingImages

PLAIN = {"sizes": (), "longest": 1000, "flip": False, "mosaic": 0.0, "color_jitter": False}


def load(place):
    """Image `place` of a set: all of one colour, an object on its left."""
    pixels = torch.full((3, 40, 60), 20 * place + 50, dtype=torch.uint8)
    return Sample(pixels, torch.tensor([[0.0, 0.0, 20.0, 40.0]]), torch.tensor([place]))


def test_without_settings_an_image_is_as_it_was():
    found = TrainingImages(**PLAIN)(load, 3, 8)
    assert all(torch.equal(a, b) for a, b in zip(found, load(3), strict=True))


def test_sizes_are_drawn_and_the_longer_side_is_bounded():
    prepare = TrainingImages(**PLAIN | {"sizes": (20, 40, 80), "longest": 90})
    torch.manual_seed(0)
    shapes = {tuple(prepare(load, 0, 8).pixels.shape[1:]) for _ in range(40)}
    assert shapes == {(20, 30), (40, 60), (60, 90)}


def test_half_of_the_images_are_mirrored_with_their_boxes():
    prepare = TrainingImages(**PLAIN | {"flip": True})
    torch.manual_seed(0)
    lefts = [prepare(load, 0, 8).boxes[0, 0].item() for _ in range(100)]
    assert set(lefts) == {0.0, 40.0} and 30 < lefts.count(40.0) < 70


def test_a_share_of_the_images_are_mosaics_of_any_of_the_set():
    prepare = TrainingImages(**PLAIN | {"sizes": (64,), "mosaic": 0.25})
    torch.manual_seed(0)
    found = [prepare(load, 5, 8) for _ in range(200)]
    mosaics = [s for s in found if tuple(s.pixels.shape[1:]) == (64, 64)]
    others = [s for s in found if tuple(s.pixels.shape[1:]) == (64, 96)]
    assert 30 < len(mosaics) < 75 and len(others) == 200 - len(mosaics)
    assert all(s.labels.tolist() == [5] for s in others)
    others = {label for s in mosaics for label in s.labels.tolist()}
    assert others == set(range(8))


def test_colours_change_and_nothing_moves():
    prepare = TrainingImages(**PLAIN | {"color_jitter": True})
    torch.manual_seed(0)
    means = []
    for _ in range(60):
        found = prepare(load, 2, 8)
        assert torch.equal(found.boxes, load(2).boxes) and found.pixels.dtype == torch.uint8
        assert len(found.pixels.flatten().unique()) <= 3  # still of one colour
        means.append(found.pixels.float().mean().item() / 90)
    assert 1 / 1.52 < min(means) < 0.8 and 1.2 < max(means) < 1.52


@pytest.mark.detectron2
def test_both_engines_train_on_the_same_images(make_recipe, scenes):
    from lowbit.detection.detector.initial_weights import start_from_backbone
    from lowbit.detection.with_detectron2.recipe_to_config import to_cfg
    from lowbit.detection.yolov4.record_mapper import RecordMapper

    fields = {"mosaic": 0.5, "color_jitter": True}
    recipe = make_recipe(
        meta_architecture="yolov4",
        features=("res3", "res4", "res5"),
        head_convs=2,
        train_sizes=(48, 64),
        yolov4=fields,
    )
    start = start_from_backbone(recipe.checkpoint)
    records = scenes.records()
    mapper = RecordMapper(to_cfg(recipe, start, classes=10, dataset="-"), records)
    torch.manual_seed(0)
    images, targets = take(scenes, range(12), recipe)
    torch.manual_seed(0)
    mapped = [mapper(record) for record in records]
    assert {tuple(image.shape) for image in images} == {(3, 48, 48), (3, 64, 64)}
    for image, target, record in zip(images, targets, mapped, strict=True):
        assert torch.equal(image, record["image"].float() / 255)
        assert torch.equal(target["boxes"], record["instances"].gt_boxes.tensor)
        assert torch.equal(target["labels"], record["instances"].gt_classes)
