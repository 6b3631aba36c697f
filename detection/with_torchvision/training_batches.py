"""Training images and targets in torchvision's format, and the anchors that fit them."""

from functools import partial

import torch
from torch import Tensor

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.recipe import Recipe
from lowbit.detection.with_torchvision.pyramid import mirrored
from lowbit.detection.yolov4.anchors import box_shapes, kmeans_anchors
from lowbit.detection.yolov4.mosaic import Sample
from lowbit.detection.yolov4.training_images import TrainingImages


def take(
    images: DetectionSet, numbers: list[int], recipe: Recipe
) -> tuple[list[Tensor], list[dict]]:
    """Return images and targets of a batch in torchvision's format, by their numbers in `annotated`."""
    batch, targets = [], []
    for number in numbers:
        if recipe.meta_architecture == "yolov4":
            pixels, boxes, labels = _augmented(images, number, recipe)
        else:
            pixels, boxes, labels = _loaded(images, number)
            if recipe.flip and torch.rand(()) < 0.5:
                pixels, boxes = mirrored(pixels, boxes)
        batch.append(pixels.to(recipe.device).float() / 255)
        targets.append({"boxes": boxes.to(recipe.device), "labels": labels.to(recipe.device)})
    return batch, targets


def _loaded(images: DetectionSet, number: int) -> Sample:
    place = images.annotated[number]
    return Sample(images.image(place), images.boxes[place], images.labels[place])


def _augmented(images: DetectionSet, number: int, recipe: Recipe) -> Sample:
    """Return a training image of YOLOv4, at its final size."""
    settings = recipe.yolov4_settings
    prepare = TrainingImages(
        sizes=recipe.train_sizes,
        longest=recipe.max_size,
        flip=recipe.flip,
        mosaic=settings.mosaic,
        color_jitter=settings.color_jitter,
    )
    return prepare(partial(_loaded, images), number, len(images.annotated))


def clustered_anchors(images: DetectionSet, recipe: Recipe) -> Tensor:
    """Return YOLOv4's anchors for a training set, (9, 2), by k-means of its boxes at test-time size."""
    sizes = ((image["height"], image["width"]) for image in images.truth["images"])
    known = ((*size, boxes) for size, boxes in zip(sizes, images.boxes, strict=True))
    return kmeans_anchors(box_shapes(known, shorter=recipe.test_size, longest=recipe.max_size))
