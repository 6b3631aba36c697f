"""Recipes ask for the views of SPEC A.8."""

import torch

from lowbit.data import Center, Crop, open_images
from lowbit.transfer import Recipe
from lowbit.transfer.features.views import center, crop


def test_views_have_the_recipe_s_numbers():
    recipe = Recipe(
        checkpoint="b.pth",
        image_size=224,
        eval_resize=256,
        eval_interpolation="bilinear",
        augmentation={"scale": [0.08, 1.0], "interpolation": "bicubic"},
        seed=3,
    )
    assert center(recipe) == Center(size=224, resize=256, interpolation="bilinear")
    assert crop(recipe, k=7) == Crop(
        size=224,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        seed=3,
        k=7,
        interpolation="bicubic",
    )


def test_an_image_is_scored_whole_and_resized_bicubically_unless_told_otherwise():
    recipe = Recipe(checkpoint="b.pth", image_size=48)
    assert center(recipe) == Center(size=48, resize=48, interpolation="bicubic")


def test_an_augmentation_that_does_nothing_shows_the_image_itself(see):
    images = open_images("digits", "val")
    still = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0}
    drawn = see(images, crop(Recipe(checkpoint="b.pth", augmentation=still), k=0))
    assert torch.allclose(drawn, see(images), atol=1e-5)
    mirror = Recipe(checkpoint="b.pth", augmentation={**still, "flip": 1.0})
    assert torch.allclose(see(images, crop(mirror, k=0)), see(images).flip(-1), atol=1e-5)


def test_default_views_crop_and_keep_colour(see):
    images = open_images("digits", "val")
    first, second = (see(images, crop(Recipe(checkpoint="b.pth"), k=k)) for k in (0, 1))
    assert not first.equal(second)
    assert first[:, 0].equal(first[:, 1])  # gray stays gray: no colour jitter in transfer
