"""Videos as folders of frames: what is a sample, which frames are seen, what names the set."""

import numpy as np
import pytest
import torch
from PIL import Image

from lowbit import data
from lowbit.data import Center, Crop, open_images
from lowbit.data.image_sets.video_folder import frames_of, spread
from lowbit.data.image_sets.video_sets import video_set

CLASSES = ("jump", "run")
CENTER = Center(size=8, resize=8)


def value(split, label, video, frame):
    """The gray of a frame, no two alike."""
    return 100 * (split == "test") + 50 * label + 10 * video + frame


@pytest.fixture
def videos(tmp_path):
    """Four videos of 2 to 5 frames a class in train, two in test, every frame of one gray."""
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for video in range(count):
                folder = tmp_path / "sports" / split / name / f"v{video}"
                folder.mkdir(parents=True)
                for frame in range(video + 2):
                    gray = value(split, label, video, frame)
                    Image.new("RGB", (12, 10), (gray,) * 3).save(folder / f"{frame:03}.png")
                (folder / "notes.txt").write_text("no frame")
    return tmp_path


def grays(images, batch):
    """Return the bytes of normalized gray views (B, F, 3, H, W), one a frame."""
    spec = data.image_set("frames:sports")
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (spec.mean, spec.std))
    pixels = (batch * std + mean) * 255
    assert pixels.flatten(2).std(-1).max() < 1e-3
    return pixels.flatten(2).mean(-1).round().int().tolist()


def test_a_sample_is_a_video_and_shows_spread_frames_in_order(videos):
    test = open_images("frames:sports@3", "test", root=videos)
    assert (len(test), test.frames, test.classes) == (4, 3, CLASSES)
    (batch,) = test.batches(CENTER, batch_size=9, device="cpu", workers=0)
    assert batch.shape == (4, 3, 3, 8, 8)
    # two frames: 0, 1, 1; three frames: 0, 1, 2
    expected = [
        [value("test", label, video, f) for f in ((0, 1, 1) if video == 0 else (0, 1, 2))]
        for label in (0, 1)
        for video in (0, 1)
    ]
    assert grays(test, batch) == expected
    assert test.labels.tolist() == [0, 0, 1, 1]


def test_val_is_carved_by_whole_videos(videos):
    parts = {split: open_images("frames:sports", split, root=videos) for split in ("train", "val")}
    assert (len(parts["train"]), len(parts["val"])) == (6, 2)
    assert not set(parts["train"].ids.tolist()) & set(parts["val"].ids.tolist())
    assert parts["val"].frames == 8


def test_all_frames_of_a_video_get_the_same_crop_and_flip(videos):
    folder = videos / "sports/train/run/v3"
    picture = np.random.default_rng(0).integers(0, 255, (10, 12, 3), dtype=np.uint8)
    for path in folder.glob("*.png"):
        Image.fromarray(picture).save(path)
    train = open_images("frames:sports@4", "trainval", root=videos)
    views = []
    for k in (0, 1):
        crop = Crop(size=6, scale=(0.2, 0.9), ratio=(0.8, 1.2), flip=0.5, seed=1, k=k)
        last = [torch.tensor([len(train) - 1])]
        (batch,) = train.batches(crop, batch_size=1, device="cpu", workers=0, places=last)
        assert all(torch.equal(batch[0, 0], frame) for frame in batch[0])
        views.append(batch)
    assert not torch.equal(*views)


def test_workers_change_no_pixel(videos):
    train = open_images("frames:sports@2", "train", root=videos)
    crop = Crop(size=6, scale=(0.2, 0.9), ratio=(0.8, 1.2), flip=0.5, seed=1, k=0)
    seen = [
        torch.cat(list(train.batches(crop, batch_size=2, device="cpu", workers=workers)))
        for workers in (0, 2)
    ]
    assert torch.equal(*seen)


def test_the_identity_is_of_the_frames_not_of_how_many_are_seen(videos):
    def sha():
        return data.locate("frames:sports", root=videos).split_sha256

    before = sha()
    assert data.locate("frames:sports@3", root=videos).split_sha256 == before
    Image.new("RGB", (12, 10)).save(videos / "sports/test/run/v0/002.png")  # one more frame
    assert sha() != before


def test_frames_are_the_middles_of_equal_parts():
    for n in range(1, 20):
        for count in range(1, 12):
            middles = [int(np.floor((part + 0.5) * n / count)) for part in range(count)]
            assert spread(range(n), count) == middles


@pytest.mark.parametrize(
    "name",
    [
        "frames:",
        "frames:a/b",
        "frames:a@0",
        "frames:a@x",
        "frames:a@",
        "frames:..",
        "frames:a@" + "9" * 5000,
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="does not name videos"):
        video_set(name)


def test_an_empty_video_and_a_lone_one_are_refused(videos):
    empty = videos / "sports/test/run/v0"
    for path in empty.glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"v0 has no frames"):
        frames_of(empty)
    for name in CLASSES:  # val is carved, so a class needs two
        for video in (1, 2, 3):
            path = videos / f"sports/train/{name}/v{video}"
            path.rename(videos / f"{name}{video}")
    with pytest.raises(ValueError, match="has 1 videos, but 2 or more"):
        data.locate("frames:sports", root=videos)


def test_videos_are_not_pretrained_on(videos):
    with pytest.raises(ValueError, match="not pretrained on; nothing was loaded"):
        data.view_source("frames:sports", "train", root=videos, size=8, augmentation={})
