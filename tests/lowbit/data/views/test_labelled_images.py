"""Labelled images, in memory and in files: views against torchvision's, and what they depend on."""

import dataclasses

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as tv
from torchvision.transforms.v2 import functional as vision

from lowbit import data
from lowbit.data import Center, Crop, normalization, normalize, open_images

CROP = Crop(size=24, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, seed=5, k=0)
SIZES = ((80, 50), (50, 90), (64, 64))  # width, height


@pytest.fixture(scope="module")
def digits():
    return open_images("digits", "val")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of pictures of three sizes, too different to be held in memory."""
    root = tmp_path_factory.mktemp("root")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 8), ("test", 3)):
        for name in ("dot", "bar"):
            (root / f"shapes/{part}/{name}").mkdir(parents=True)
            for i in range(count):
                width, height = SIZES[i % 3]
                coarse = torch.rand(1, 3, 5, 6, generator=generator)
                x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
                pixels = (x[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous()
                Image.fromarray(pixels.numpy()).save(root / f"shapes/{part}/{name}/{i}.png")
    return root


def _see(images, view, *, batch_size=64, **options):
    options = {"workers": 0, **options}
    return torch.cat(
        list(images.batches(view, batch_size=batch_size, device="cpu", **options)),
    )


def _bytes(x, name):
    mean, std = (torch.tensor(c)[:, None, None] for c in normalization(name))
    return (x * std + mean) * 255


def test_the_central_view_at_the_images_own_size_only_normalizes(digits):
    wanted = normalize(data.load("digits", "val").images, *normalization("digits"))
    assert _see(digits, Center(size=32, resize=32)).equal(wanted)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "size"), [(36, 32), (24, 20), (40, 40)])
def test_resize_and_crop_in_memory_are_torchvisions(digits, resize, size, mode):
    raw = data.load("digits", "val").images
    large = vision.resize(raw, [resize, resize], InterpolationMode(mode), antialias=True)
    wanted = vision.center_crop(large, [size, size])
    found = _bytes(_see(digits, Center(size, resize, mode)), "digits")
    assert found.shape == wanted.shape
    # torchvision's uint8 kernel rounds between its two passes: off by a byte or two, unbiased.
    assert (found - wanted).abs().max() < 2.01
    assert (found - wanted).mean().abs() < 0.2


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_central_view_of_a_file_is_torchvisions_of_a_pillow_image(shapes, mode):
    images = open_images("folder:shapes", "test", root=shapes)
    transform = tv.Compose(
        [
            tv.Resize(40, InterpolationMode(mode), antialias=True),
            tv.CenterCrop(32),
            tv.PILToTensor(),
        ]
    )
    files = data.locate("folder:shapes", root=shapes).folder(None).files("test")
    wanted = torch.stack([transform(Image.open(files[i])) for i in range(len(files))])
    found = _bytes(_see(images, Center(32, 40, mode)), "folder:shapes")
    assert (found - wanted).abs().max() < 2.01  # Pillow's kernel has other roundings
    assert (found - wanted).abs().mean() < 0.3


@pytest.mark.parametrize(
    "options", [{"batch_size": 5}, {"workers": 2}, {"batch_size": 4, "workers": 2}]
)
def test_a_view_of_a_file_depends_on_its_seed_its_k_and_its_image_alone(shapes, options):
    images = open_images("folder:shapes", "train", root=shapes)
    first = _see(images, CROP)
    assert first.equal(_see(images, CROP, **options))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    assert first[order].equal(_see(images, CROP, places=order, **options))
    joined = open_images("folder:shapes", "trainval", root=shapes)
    places = torch.searchsorted(joined.ids, images.ids)
    assert first.equal(_see(joined, CROP, places=places, **options))
    for other in ({"seed": 6}, {"k": 1}):
        changed = _see(images, dataclasses.replace(CROP, **other))
        assert (changed != first).flatten(1).any(dim=1).all()


def test_a_crop_of_a_file_is_a_box_of_it_resized_once(shapes):
    images = open_images("folder:shapes", "train", root=shapes)
    still = dataclasses.replace(CROP, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0)
    (place,) = [i for i in range(len(images)) if int(images.ids[i]) == 2]  # 64 by 64
    found = _bytes(_see(images, still, places=torch.tensor([place]))[0], "folder:shapes")
    path = data.locate("folder:shapes", root=shapes).folder(None).files("train")[place]
    whole = tv.Compose([tv.Resize(24), tv.RandomHorizontalFlip(1.0), tv.PILToTensor()])
    assert (found - whole(Image.open(path))).abs().max() < 2.01


def test_flips_come_at_their_rate(shapes):
    images = open_images("folder:shapes", "train", root=shapes)
    plain = dataclasses.replace(CROP, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    unflipped = _see(images, plain)
    flips = 0
    for k in range(20):
        views = _see(images, dataclasses.replace(plain, k=k, flip=0.25))
        same = (views == unflipped).flatten(1).all(dim=1)
        assert views[~same].equal(unflipped[~same].flip(-1))
        flips += int((~same).sum())
    n = 20 * len(images)
    assert abs(flips / n - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5


def test_a_view_in_memory_is_the_seed_s_and_the_k_s(digits):
    first, again = (_see(digits, CROP) for _ in range(2))
    assert first.equal(again)
    assert not first.equal(_see(digits, dataclasses.replace(CROP, k=1)))
    assert not first.equal(_see(digits, dataclasses.replace(CROP, seed=6)))
    kept = torch.Generator().manual_seed(0)
    drawn = [_see(digits, CROP, generator=kept) for _ in range(2)]
    assert not drawn[0].equal(drawn[1])  # the generator went on


@pytest.mark.parametrize("name", ["digits", "folder:shapes"])
def test_batches_are_those_asked_for(shapes, name):
    images = open_images(name, "test", root=shapes)
    view = Center(size=8, resize=8)
    sizes = [len(x) for x in images.batches(view, batch_size=4, device="cpu", workers=0)]
    assert sum(sizes) == len(images) and set(sizes[:-1]) == {4} and 0 < sizes[-1] <= 4
    rows = [torch.tensor([5, 0]), torch.tensor([3, 3, 1])]
    found = list(images.batches(view, batch_size=1, device="cpu", places=rows, workers=0))
    every = _see(images, view)
    assert [x.equal(every[row]) for x, row in zip(found, rows, strict=True)] == [True, True]


def test_a_damaged_file_is_named_whoever_decodes_it(shapes, tmp_path):
    import shutil

    shutil.copytree(shapes / "shapes", tmp_path / "shapes")
    path = tmp_path / "shapes/test/dot/1.png"
    path.write_bytes(path.read_bytes()[:200])
    images = open_images("folder:shapes", "test", root=tmp_path)
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"dot/1.png cannot be decoded"):
            _see(images, CROP, workers=workers)


def test_no_global_random_number_is_drawn(shapes):
    images = open_images("folder:shapes", "test", root=shapes)
    state = torch.get_rng_state()
    _see(images, CROP, workers=1)
    assert torch.get_rng_state().equal(state)
