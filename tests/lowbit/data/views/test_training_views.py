"""Sources of views: the same numbers as augmenting by hand, resumed exactly, whoever decodes."""

import hashlib
import shutil

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from lowbit.data import Augment, load, locate, normalization, normalize, view_source

VIEWS = {"scale": (0.3, 1.0), "flip": 0.5}
PLAIN = {"flip": 0.0, "jitter_p": 0.0, "gray_p": 0.0}


def epoch_of(count, batch, seed=0):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // batch * batch].view(-1, batch)


# in memory ----------------------------------------------------------------------------------------


def digits(**options):
    return view_source("digits", "train", size=32, augmentation=VIEWS, **options)


@pytest.mark.parametrize(("rank", "stream"), [(0, "7/views"), (1, "7/views/1")])
def test_views_in_memory_are_augments_with_the_stream_of_the_seed(rank, stream):
    source, images = digits(seed=7, rank=rank), load("digits", "train").images
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    mean, std = normalization("digits")
    augment = Augment(32, mean=mean, std=std, **VIEWS)
    plain = Augment(32, mean=mean, std=std, scale=(1, 1), ratio=(1, 1), **PLAIN)
    rows = epoch_of(len(source), 20)[:3]
    for row, batch in zip(rows, source.epoch(rows, epoch=0), strict=True):
        assert torch.equal(batch.view(), augment(images[row], generator))
        assert torch.equal(batch.image(), plain(images[row], generator))
        assert torch.equal(batch.view(), augment(images[row], generator))


def test_a_source_in_memory_goes_on_where_its_state_was_saved():
    rows = epoch_of(100, 10)
    whole, first, second = digits(), digits(), digits()
    expected = [(b.view(), b.view()) for b in whole.epoch(rows, 0)]
    for batch, _ in zip(first.epoch(rows, 0), range(4), strict=False):
        batch.view(), batch.view()
    second.load_state_dict(first.state_dict())
    for batch, views in zip(second.epoch(rows[4:], 0), expected[4:], strict=True):
        assert torch.equal(batch.view(), views[0]) and torch.equal(batch.view(), views[1])


@pytest.mark.parametrize(
    "asked",
    [
        ["vv"] * 12,
        ["v"] * 12,
        ["vv"] * 5 + ["v"] + ["vv"] * 6,  # fewer than were made ahead
        ["vv"] * 5 + ["vvv"] * 3 + ["vv"] * 4,  # more
        ["vv"] * 3 + ["viv"] + ["vv"] * 3 + ["i", "", "vi", "ivv", "vv"],
    ],
)
@pytest.mark.parametrize("stop", [12, 7])
def test_what_is_made_ahead_is_what_each_request_would_have_made(asked, stop):
    """And a pass over the images that is given up leaves the stream after the last view taken."""
    source, images = digits(seed=7), load("digits", "train").images
    generator = torch.Generator()
    generator.set_state(source.state_dict()["views"])
    rows = epoch_of(120, 10)
    for row, requests, batch in zip(rows, asked[:stop], source.epoch(rows, 0), strict=False):
        for request in requests:
            found = batch.view() if request == "v" else batch.image()
            make = source.augment if request == "v" else source.prepare
            assert torch.equal(found, make(images[row], generator))
    assert torch.equal(source.state_dict()["views"], generator.get_state())
    for row, batch in zip(rows[:2], source.epoch(rows[:2], 1), strict=True):
        assert torch.equal(batch.view(), source.augment(images[row], generator))


def test_views_of_several_small_batches_are_made_at_once(monkeypatch):
    source, made = digits(), []
    view = Augment.view

    def counted(self, images, *draws):
        made.append(len(images))
        return view(self, images, *draws)

    monkeypatch.setattr(Augment, "view", counted)
    for batch in source.epoch(epoch_of(100, 10), 0):
        batch.view(), batch.view()
    assert made == [10, 10, 160, 20]  # 2^19 floats hold 170 views of 32 pixels


def test_a_source_says_what_it_is_of():
    source, split = digits(), load("digits", "train")
    assert (source.name, source.split, len(source)) == ("digits", "train", 1077)
    assert source.split_sha256 == split.split_sha256
    assert torch.equal(source.labels, split.labels)
    with pytest.raises(ValueError, match="has no split 'valid'"):
        view_source("digits", "valid", size=32, augmentation={})


# streamed -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write 24 smooth pictures of three shapes, larger than what is held in memory."""
    root = tmp_path_factory.mktemp("root")
    for i in range(24):
        c, part = "ab"[i % 2], "train" if i < 20 else "val"
        h, w = [(80, 120), (100, 90), (96, 96)][i % 3]
        rows, columns = torch.linspace(0, 1, h)[:, None], torch.linspace(0, 1, w)
        waves = [torch.sin((3 + k) * rows + (2 + i % 5) * columns * (k + 1)) for k in range(3)]
        pixels = (127.5 + 127 * torch.stack(waves, dim=-1)).to(torch.uint8)
        folder = root / "photos" / part / c
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / f"{i:02}.jpg", quality=95)
    return root


def streamed(root, augmentation=VIEWS, **options):
    return view_source(
        "folder:photos", "trainval", root=root, size=32, augmentation=augmentation, **options
    )


def pixels(root, position):
    names = sorted((root / "photos/train").glob("*/*.jpg"))
    with Image.open(names[position]) as image:
        return vision.pil_to_tensor(image)


def test_a_folder_of_photos_is_streamed(photos):
    source, spec = streamed(photos), locate("folder:photos", root=photos)
    assert spec.size is None and spec.counts == {"train": 18, "val": 2, "test": 4}
    assert (source.name, source.split, len(source)) == ("folder:photos", "trainval", 20)
    assert source.split_sha256 == spec.split_sha256
    assert source.labels.tolist() == [0] * 10 + [1] * 10
    batch = next(source.epoch(epoch_of(20, 4), 0))
    view = batch.view()
    assert view.shape == (4, 3, 32, 32) and view.dtype == torch.float32
    assert not torch.equal(view, batch.view())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_is_the_central_square_resized_and_normalized(photos, interpolation):
    source = streamed(photos, {**VIEWS, "interpolation": interpolation})
    mean, std = normalization("folder:photos")
    (batch,) = source.epoch(torch.arange(20)[None], 0)
    for position, image in enumerate(batch.image()):
        square = vision.center_crop(
            pixels(photos, position), [min(pixels(photos, position).shape[1:])]
        )
        mode = InterpolationMode(interpolation)
        expected = vision.resize(square, [32, 32], interpolation=mode, antialias=True)
        torch.testing.assert_close(
            image, normalize(expected[None], mean, std)[0], atol=0.03, rtol=0
        )


def test_a_streamed_view_has_the_distribution_of_one_in_memory(photos):
    """The same options, on one image and in great number: equal moments of every pixel."""
    mean, std = normalization("folder:photos")
    options = {**VIEWS, "jitter_order": "random"}
    source = streamed(photos, options)
    views = torch.cat([next(source.epoch(torch.tensor([[2]]), e)).view() for e in range(300)])
    image = pixels(photos, 2)[None].expand(300, -1, -1, -1)
    expected = Augment(32, mean=mean, std=std, **options)(image, torch.Generator().manual_seed(0))
    spread = expected.std(0)
    assert ((views.mean(0) - expected.mean(0)).abs() / spread).mean() < 4 * (2 / 300) ** 0.5
    assert ((views.std(0) - spread).abs() / spread).mean() < 0.15


def test_workers_order_and_restarts_change_no_pixel(photos):
    rows = epoch_of(20, 4)
    alone = streamed(photos, seed=3)
    expected = [(b.view(), b.view()) for b in alone.epoch(rows, 2)]
    working = streamed(photos, seed=3, workers=2)
    next(working.epoch(rows, 0))  # an epoch that is given up
    for batch, views in zip(working.epoch(rows, 2), expected, strict=True):
        assert torch.equal(batch.view(), views[0]) and torch.equal(batch.view(), views[1])
    working.load_state_dict(alone.state_dict())
    resumed = next(working.epoch(rows[3:], 2))
    assert torch.equal(resumed.view(), expected[3][0])
    shared = next(alone.epoch(rows[:, 2:], 2))  # the share of another process in the first batch
    assert torch.equal(shared.view(), expected[0][0][2:])


def test_epochs_seeds_positions_and_views_are_drawn_apart(photos):
    row = torch.tensor([[5, 6]])
    views = []
    for seed in (0, 1):
        source = streamed(photos, {**PLAIN, "scale": (0.1, 0.5)}, seed=seed)
        for epoch in (0, 1):
            (batch,) = source.epoch(row, epoch)
            views += [view for _ in range(2) for view in batch.view()]
    assert len({view.numpy().tobytes() for view in views}) == 16


def test_what_was_not_prepared_is_made_all_the_same(photos):
    rows = epoch_of(20, 4)
    source, other = streamed(photos), streamed(photos)
    asked = [[(b.view(), b.view(), b.view(), b.image()) for b in source.epoch(rows, 0)]]
    asked += [[(b.view(), b.view(), b.view(), b.image()) for b in source.epoch(rows, 0)]]
    for late, ready in zip(*asked, strict=True):  # the second time workers were told
        assert all(torch.equal(a, b) for a, b in zip(late, ready, strict=True))
    images = [b.image() for b in other.epoch(rows, 0)]
    assert all(torch.equal(a, b[3]) for a, b in zip(images, asked[0], strict=True))


def test_the_global_random_numbers_are_left_alone(photos):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for batch in streamed(photos).epoch(epoch_of(20, 4), 0):
        batch.view()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_photo_is_named(photos, tmp_path, workers):
    shutil.copytree(photos / "photos", tmp_path / "photos")
    path = tmp_path / "photos/train/b/07.jpg"
    path.write_bytes(path.read_bytes()[:700])
    source = streamed(tmp_path, workers=workers)
    with pytest.raises(ValueError, match=r"^\S+train/b/07.jpg cannot be decoded \(.+\); nothing"):
        for batch in source.epoch(epoch_of(20, 4), 0):
            batch.view()
