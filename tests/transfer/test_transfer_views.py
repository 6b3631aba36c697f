"""The central view against torchvision's, the augmented one by its promises."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from data import load, normalization, normalize
from transfer import Recipe
from transfer.views import Views


@pytest.fixture(scope="module")
def images():
    return load("digits", "val").images[:16]


def test_the_central_view_at_the_images_own_size_only_normalizes(images):
    mean, std = normalization("digits")
    assert Views("digits", 32).center(images).equal(normalize(images, mean, std))


@pytest.mark.parametrize(("resize", "size"), [(36, 32), (24, 20), (40, 40)])
def test_resize_and_crop_are_torchvisions(images, resize, size):
    mean, std = (torch.tensor(v)[:, None, None] for v in normalization("digits"))
    large = tv.resize(images, [resize, resize], InterpolationMode.BICUBIC, antialias=True)
    wanted = tv.center_crop(large, [size, size])
    found = (Views("digits", size, resize=resize).center(images) * std + mean) * 255
    assert found.shape == wanted.shape
    # torchvision's uint8 kernel rounds between its two passes: off by a byte or two, unbiased.
    assert (found - wanted).abs().max() < 2.01
    assert (found - wanted).mean().abs() < 0.2


def test_a_recipe_s_augmentation_reaches_the_augmented_view(images):
    still = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0}
    views = Views.of(Recipe(checkpoint="b.pth", augmentation=still))
    drawn = views.augmented(images, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn, views.center(images), atol=1e-5)
    mirror = Views.of(Recipe(checkpoint="b.pth", augmentation={**still, "flip": 1.0}))
    drawn = mirror.augmented(images, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn, views.center(images).flip(-1), atol=1e-5)


def test_default_views_crop_and_keep_colour(images):
    views = Views("digits", 32)
    first, second = (views.augmented(images, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not first.equal(second)
    assert first[:, 0].equal(first[:, 1])  # gray stays gray: no colour jitter in transfer
