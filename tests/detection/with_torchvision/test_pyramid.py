"""Sizes of images, mirrored images: what our torchvision detectors share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lowbit.data import normalization
from lowbit.detection.engines import get_engine
from lowbit.detection.with_torchvision.pyramid import ImageTransform, mirrored, resized

IDENTITY = ((0.0,) * 3, (1.0,) * 3)


def transformed(recipe, image, boxes=None, *, training: bool):
    target = None if boxes is None else [{"boxes": boxes, "labels": torch.zeros(len(boxes))}]
    images, targets = ImageTransform(recipe, IDENTITY).train(training)([image], target)
    return images.image_sizes[0], targets


@pytest.mark.parametrize("training", [True, False])
def test_images_stay_as_they_are_unless_a_size_is_named(make_recipe, training):
    image, boxes = torch.rand(3, 48, 70), torch.tensor([[4.0, 6, 20, 30]])
    size, targets = transformed(make_recipe(), image, boxes, training=training)
    assert size == (48, 70) and torch.equal(targets[0]["boxes"], boxes)


def test_the_shorter_side_is_drawn_in_training_and_fixed_in_inference(make_recipe):
    recipe = make_recipe(train_sizes=(24, 36), test_size=60, max_size=80)
    image, boxes = torch.rand(3, 48, 72), torch.tensor([[4.0, 6, 20, 30]])
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        size, targets = transformed(recipe, image, boxes, training=True)
        torch.testing.assert_close(targets[0]["boxes"], boxes * size[0] / 48)
        seen.add(size)
    assert seen == {(24, 36), (36, 54)}
    # 60 x 90 would be longer than 80.
    assert transformed(recipe, image, training=False)[0] == (53, 80)


@pytest.mark.detectron2
def test_images_are_resized_as_by_detectron2(make_recipe):
    """Sides are the same to the pixel, and pixels to a level of the 256 that its images are rounded to."""
    from detectron2.data.transforms import ResizeShortestEdge

    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 2000, (2000, 2)).tolist():
        for shorter, longest in ((224, 640), (800, 1333), (513, 1000)):
            theirs = ResizeShortestEdge.get_output_shape(height, width, shorter, longest)
            assert resized(height, width, shorter=shorter, longest=longest) == theirs
    pixels = rng.integers(0, 256, (75, 100, 3), dtype=np.uint8)
    for test_size in (40, 75, 120):
        transform = ImageTransform(make_recipe(test_size=test_size, max_size=150), IDENTITY).eval()
        image, _ = transform.resize(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        theirs = ResizeShortestEdge(test_size, 150).get_transform(pixels).apply_image(pixels)
        assert image.permute(1, 2, 0).shape == theirs.shape
        assert np.abs(255 * image.permute(1, 2, 0).numpy() - theirs).max() <= 1


@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_detections_come_back_in_the_pixels_of_the_file(make_recipe, backbone_file, engine):
    """Both engines resize for inference and answer in the image's own coordinates."""
    from lowbit.detection.detector.initial_weights import initialize, start_from_backbone
    from lowbit.detection.detector.quantize import normalized

    engine = get_engine(engine)
    recipe = make_recipe(engine=engine.name, test_size=96, max_size=120)
    start = start_from_backbone(backbone_file)
    detector = engine.build(recipe, start, classes=3)
    initialize(detector, start)
    pixels = torch.zeros(3, 48, 64, dtype=torch.uint8)
    images = type("Set", (), {"__len__": lambda self: 1})()
    images.image, images.ids, images.category_ids = (lambda place: pixels), (1,), (2, 3, 7)
    batch = engine.inputs(images, [0], recipe)
    detector.eval()
    shape = normalized(detector, batch).shape[-2:]
    assert all(
        side <= found < side + 32 for side, found in zip((90, 120), shape, strict=True)
    )  # padded
    for name in ("score_thresh", "test_score_thresh"):
        if hasattr(detector, name):
            setattr(detector, name, 0.0)
    found = engine.predict(detector, images, recipe)
    corners = torch.tensor([d["bbox"] for d in found])
    assert len(found) > 20 and {d["image_id"] for d in found} == {1}
    assert {d["category_id"] for d in found} <= {2, 3, 7}
    assert float((corners[:, 0] + corners[:, 2]).max()) <= 64.001
    assert float((corners[:, 0] + corners[:, 2]).max()) > 48  # the whole width is used


def test_a_mirrored_image_has_its_objects_where_they_are_seen():
    pixels = torch.zeros(3, 8, 10)
    pixels[:, 2:6, 1:4] = 1
    flipped, boxes = mirrored(pixels, torch.tensor([[1.0, 2, 4, 6]]))
    x1, y1, x2, y2 = boxes[0].int().tolist()
    assert flipped[:, y1:y2, x1:x2].eq(1).all() and flipped.sum() == pixels.sum()
    again, back = mirrored(flipped, boxes)
    assert torch.equal(again, pixels) and back.tolist() == [[1.0, 2, 4, 6]]


def test_the_normalization_is_the_starts(make_recipe, scenes):
    constants = normalization("digits")
    transform = ImageTransform(make_recipe(), constants)
    image = scenes.image(0).float() / 255
    images, _ = transform([image])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    torch.testing.assert_close(images.tensors[0], (image - mean) / std)


def test_half_of_the_images_are_mirrored_and_their_boxes_with_them(make_recipe):
    from lowbit.detection.with_torchvision.training_batches import take

    pixels = torch.zeros(3, 8, 10, dtype=torch.uint8)
    images = SimpleNamespace(
        annotated=range(64),
        image=lambda place: pixels,
        boxes=[torch.tensor([[1.0, 2, 4, 6]])] * 64,
        labels=[torch.tensor([0])] * 64,
    )
    torch.manual_seed(0)
    lefts = [
        t["boxes"][0, 0].item()
        for t in take(images, range(64), make_recipe(flip=True, dataset="coco"))[1]
    ]
    assert set(lefts) == {1.0, 6.0} and 20 < lefts.count(6.0) < 44
    lefts = [t["boxes"][0, 0].item() for t in take(images, range(64), make_recipe())[1]]
    assert set(lefts) == {1.0}
