"""Whole jobs on images of many sizes, which stay in their files: any workers, any restart, one result."""

import pytest
import torch
from PIL import Image

from lowbit.backbones import create_backbone, save_backbone
from lowbit.data import open_images
from lowbit.data.views.image_files import ImagesInFiles
from lowbit.transfer import Recipe, run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of pictures, dark and light, of three sizes."""
    root = tmp_path_factory.mktemp("root")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 20), ("test", 9)):
        for label, name in enumerate(("night", "day")):
            (root / f"sky/{part}/{name}").mkdir(parents=True)
            for i in range(count):
                height, width = ((40, 50), (70, 40), (48, 48))[i % 3]
                noise = torch.rand(height, width, 3, generator=generator) * 90 + 100 * label
                image = Image.fromarray(noise.byte().numpy())
                image.save(root / f"sky/{part}/{name}/{i}.jpg")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


def _recipe(root, checkpoint, **fields):
    settings = {
        "dataset": "folder:sky",
        "data_root": str(root),
        "checkpoint": str(checkpoint),
        "image_size": 32,
        "eval_resize": 36,
        "epochs": 4,
        "lr": 0.05,
        "batch_size": 16,
        "calibration_batch_size": 16,
        "eval_batch_size": 16,
        "precisions": ("FP", "4w4a"),
        "num_workers": 0,
    }
    return Recipe(**{**settings, **fields})


@pytest.mark.parametrize(
    ("fields", "least"),  # of the test images, in %
    [
        ({"augment_views": 2, "calibration": "official", "epochs": 40, "lr": 1.0}, 90),
        ({"protocol": "finetune", "warmup_fc": {"epochs": 3}, "epochs": 6, "batch_size": 6}, 70),
    ],
    ids=["linear", "finetune"],
)
def test_workers_change_nothing_and_something_is_learned(root, checkpoint, tmp_path, fields, least):
    assert isinstance(open_images("folder:sky", "train", root=root), ImagesInFiles)
    results = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        results.append(run(_recipe(root, checkpoint, num_workers=workers, **fields), folder))
    assert results[0] == results[1]
    rows = results[0]["measurements"]
    assert {row["n"] for row in rows if row["split"] == "test"} == {18}
    fp = next(row for row in rows if row["precision"] == "FP" and row["split"] == "test")
    assert fp["value"] > least  # the classes differ in brightness alone


def test_a_fine_tuning_that_was_killed_goes_on_to_the_same_network(
    root, checkpoint, tmp_path, monkeypatch
):
    recipe = _recipe(root, checkpoint, protocol="finetune", checkpoint_every=1)
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    straight = run(recipe, tmp_path / "straight")
    original, epochs = ImagesInFiles.batches, []

    def killing(self, view, **options):
        epochs.append(view)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return original(self, view, **options)

    monkeypatch.setattr(ImagesInFiles, "batches", killing)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "killed")
    monkeypatch.setattr(ImagesInFiles, "batches", original)
    assert run(recipe, tmp_path / "killed") == straight
    networks = [
        torch.load(tmp_path / name / "last.pth", weights_only=True)["network"]
        for name in ("straight", "killed")
    ]
    assert all(networks[0][key].equal(networks[1][key]) for key in networks[0])
