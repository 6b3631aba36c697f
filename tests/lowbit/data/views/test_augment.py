"""Augmentation against torchvision, sample by sample, and against its own promises."""

import itertools
import math

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from lowbit.data import Augment, normalize
from lowbit.data.views import augment, colors, crops

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def _images(n=16, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def _floats(n=16, size=32, seed=0):
    return _images(n, size, seed).float() / 255


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw_boxes(shape, scale, ratio, generator):
    u = torch.rand((4, shape[0], crops.CROP_ATTEMPTS), generator=generator)
    return crops.boxes(u, *shape[2:], scale=scale, ratio=ratio)


@pytest.mark.parametrize("seed", range(3))
def test_hue_equals_torchvisions(seed):
    x = torch.rand(32, 3, 32, 32, generator=_generator(seed))
    hue = torch.rand(32, generator=_generator(seed + 10)) - 0.5
    expected = torch.stack([vision.adjust_hue(i, float(h)) for i, h in zip(x, hue, strict=True)])
    torch.testing.assert_close(colors.adjust_hue(x, hue), expected, atol=1e-6, rtol=0)


def test_hue_leaves_gray_and_handles_ties_of_the_largest_channel():
    x = torch.tensor([[0.4, 0.4, 0.4], [0.8, 0.8, 0.1], [0.1, 0.8, 0.8], [0.8, 0.1, 0.8]])
    x = x[:, :, None, None]
    hue = torch.full((4,), 0.17)
    expected = torch.stack([vision.adjust_hue(i, 0.17) for i in x])
    torch.testing.assert_close(colors.adjust_hue(x.clone(), hue), expected, atol=1e-6, rtol=0)


def test_jitter_equals_torchvisions_operations_in_order():
    x = _floats()
    factors = [torch.rand(16, generator=_generator(i)) + 0.5 for i in range(3)]
    hue = (torch.rand(16, generator=_generator(3)) - 0.5) * 0.2
    expected = []
    for i, sample in enumerate(x):
        sample = vision.adjust_brightness(sample, float(factors[0][i]))
        sample = vision.adjust_contrast(sample, float(factors[1][i]))
        sample = vision.adjust_saturation(sample, float(factors[2][i]))
        expected.append(vision.adjust_hue(sample, float(hue[i])))
    ours = colors.color_jitter(x.clone(), *factors, hue)
    torch.testing.assert_close(ours, torch.stack(expected), atol=2e-6, rtol=0)


def test_crop_equals_torchvisions_resized_crop_and_flip():
    """Bilinear with the grid clamped to the box: a pixel beyond its edge is never read."""
    x = _floats()
    boxes = draw_boxes(x.shape, (0.2, 1.0), (0.5, 2.0), _generator())
    flipped = torch.arange(16) % 2 == 0
    ours = crops.crop(x, boxes, flipped, 32)
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        expected = vision.resized_crop(x[i], top, left, h, w, [32, 32], antialias=False)
        if flipped[i]:
            expected = vision.horizontal_flip(expected)
        torch.testing.assert_close(ours[i], expected, atol=2e-5, rtol=0)


def test_blur_equals_torchvisions():
    x = _floats(4, size=50)
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    expected = torch.stack(
        [vision.gaussian_blur(i, [5, 5], [float(s)] * 2) for i, s in zip(x, sigma, strict=True)]
    )
    torch.testing.assert_close(colors.gaussian_blur(x, sigma), expected, atol=1e-5, rtol=0)


def test_boxes_lie_in_the_image_and_keep_scale_and_ratio():
    shape = torch.Size([4000, 3, 60, 90])
    boxes = draw_boxes(shape, (0.2, 1.0), (3 / 4, 4 / 3), _generator()).double()
    top, left, h, w = boxes.unbind(1)
    assert (
        (top >= 0).all() and (left >= 0).all() and (top + h <= 60).all() and (left + w <= 90).all()
    )
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all() and ((w - 0.5) / (h + 0.5) <= 4 / 3).all()
    # Areas are uniform between 0.2 and what fits: boxes above 0.889 of this image never do.
    share = h * w / (60 * 90)
    assert share.min() < 0.22 and 0.85 < share.max() <= 0.9
    # Positions are uniform over all that fit.
    room = top[h < 60] / (60 - h[h < 60])
    assert abs(float(room.mean()) - 0.5) < 0.02


def test_a_box_that_never_fits_becomes_the_largest_central_one():
    """A 10 x 100 image with ratios in 3/4..4/3 and the whole area asked for: 10 x 13 in the middle."""
    boxes = draw_boxes(torch.Size([5, 3, 10, 100]), (1.0, 1.0), (3 / 4, 4 / 3), _generator())
    assert boxes.tolist() == [[0, 43, 10, 13]] * 5


def test_parameters_are_drawn_for_every_sample():
    same = _images(1).expand(64, -1, -1, -1)
    views = Augment(32, **PLAIN)(same, _generator())
    assert len({view.numpy().tobytes() for view in views}) == 64


def test_views_depend_on_the_generator_alone():
    images = _images(300)  # more than one chunk of the CPU path
    augmented = Augment(32, blur_p=0.5, **PLAIN)
    first, again = (augmented(images, _generator(5)) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, augmented(images, _generator(6)))


def test_chunks_do_not_change_a_view(monkeypatch):
    images = _images(40)
    whole = Augment(32, **PLAIN)(images, _generator())
    monkeypatch.setattr(augment, "CHUNK_FLOATS", 7 * 3 * 32 * 32)
    torch.testing.assert_close(Augment(32, **PLAIN)(images, _generator()), whole)


@pytest.mark.parametrize("option", ["flip", "jitter_p", "gray_p", "blur_p"])
def test_probabilities_are_shares_of_the_samples(option):
    off = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0, "jitter_p": 0, "gray_p": 0}
    images = _images(2000, size=16)
    untouched = Augment(16, **off, **PLAIN)(images, _generator())
    views = Augment(16, **{**off, option: 0.3}, **PLAIN)(images, _generator())
    share = ((views - untouched).abs().flatten(1).amax(1) > 1e-3).double().mean()
    assert abs(float(share) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 2000)


def test_without_options_the_images_are_only_normalized():
    images = _images()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    clean = Augment(
        32,
        mean=mean,
        std=std,
        scale=(1, 1),
        ratio=(1, 1),
        flip=0,
        jitter=(0, 0, 0, 0),
        gray_p=0,
    )
    expected = vision.normalize(images.float() / 255, mean, std)
    torch.testing.assert_close(normalize(images, mean, std), expected)
    torch.testing.assert_close(clean(images, _generator()), expected, atol=1e-4, rtol=0)


def test_the_images_stay_as_they_are():
    images = _images()
    before = images.clone()
    Augment(32, blur_p=0.5, **PLAIN)(images, _generator())
    assert torch.equal(images, before)


def test_gray_is_torchvisions():
    images = _images()
    off = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0, "jitter_p": 0}
    gray = Augment(32, gray_p=1.0, **off, **PLAIN)(images, _generator())
    expected = vision.rgb_to_grayscale(images.float() / 255, num_output_channels=3)
    torch.testing.assert_close(gray, expected, atol=2e-6, rtol=0)


def test_the_size_of_a_view_need_not_be_the_images():
    assert Augment(24, **PLAIN)(_images(3, size=40), _generator()).shape == (3, 3, 24, 24)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [12, 32, 48])
def test_a_crop_that_may_shrink_equals_torchvisions_antialiased_one(interpolation, size):
    x = _floats(size=40)
    boxes = draw_boxes(x.shape, (0.05, 1.0), (0.5, 2.0), _generator())
    flipped = torch.arange(16) % 2 == 0
    ours = crops.crop(x, boxes, flipped, size, interpolation=interpolation)
    mode = vision.InterpolationMode(interpolation)
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        expected = vision.resized_crop(
            x[i], top, left, h, w, [size, size], interpolation=mode, antialias=True
        ).clamp(0, 1)
        if flipped[i]:
            expected = vision.horizontal_flip(expected)
        torch.testing.assert_close(ours[i], expected, atol=2e-5, rtol=0)


def _reference_jitter(x, factors, order):
    """torchvision's four operations on each sample, one after the other, in its own order."""
    operations = (
        vision.adjust_brightness,
        vision.adjust_contrast,
        vision.adjust_saturation,
        vision.adjust_hue,
    )
    out = []
    for i, sample in enumerate(x):
        for kind in order[i]:
            sample = operations[kind](sample, float(factors[kind][i]))
        out.append(sample)
    return torch.stack(out)


def test_jitter_in_each_of_the_orders_equals_torchvisions_operations():
    orders = list(itertools.permutations(range(4)))
    x = _floats(24)
    factors = [torch.rand(24, generator=_generator(i)) + 0.5 for i in range(3)]
    factors.append((torch.rand(24, generator=_generator(3)) - 0.5) * 0.2)
    draw = (torch.arange(24) + 0.5) / 24  # each order once
    ours = colors.color_jitter_in_order(x.clone(), factors, draw)
    expected = _reference_jitter(x, factors, orders)
    torch.testing.assert_close(ours, expected, atol=4e-6, rtol=0)
    # Orders differ, or the test would tell nothing.
    assert (expected - _reference_jitter(x, factors, [(0, 1, 2, 3)] * 24)).abs().amax() > 0.05


def test_hue_is_turned_alike_with_and_without_a_look_at_how_many():
    x, hue = _floats(), torch.linspace(-0.5, 0.5, 16)
    chosen = torch.arange(16) % 3 == 0
    counted, masked = x.clone(), x.clone()
    colors.turn_counted(counted, hue, chosen)
    colors.turn_masked(masked, hue, chosen)
    torch.testing.assert_close(counted, masked, atol=1e-6, rtol=0)
    assert torch.equal(counted[~chosen], x[~chosen])
    assert (counted[chosen] - x[chosen]).abs().amax() > 0.1


def test_a_view_in_random_order_is_jittered_by_its_own_draws():
    """The whole of a view, from the same uniforms, against torchvision's operations."""
    images = _images(40)
    off = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "gray_p": 0.0}
    ours = Augment(32, jitter_order="random", **off, **PLAIN)(images, _generator())
    generator = _generator()
    torch.rand(4, 40, 10, generator=generator)  # the boxes'
    uniform = torch.rand(40, 10, generator=generator)
    factors = colors.jitter_factors(
        (0.4, 0.4, 0.4, 0.1), uniform[:, 2:6].unbind(1), uniform[:, 1] < 0.8
    )
    every = list(itertools.permutations(range(4)))
    order = [every[int(24 * u)] for u in uniform[:, 9]]
    expected = _reference_jitter(images.float() / 255, factors, order)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
    assert len(set(order)) > 12
