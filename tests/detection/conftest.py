"""A detector small enough to train six iterations in a second, by either engine."""

import pytest

from lowbit.backbones import create_backbone, save_backbone
from lowbit.detection import Recipe, run
from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.datasets.digit_scenes import Layout

D2 = pytest.mark.detectron2

TINY = {
    "image_size": 64,
    "train_images": 12,
    "test_images": 6,
    "digits_per_scene": (1, 2),
    "digit_size": (16, 32),
    "features": ("res4", "res5"),
    "extra_levels": False,
    "fpn_channels": 32,
    "head_convs": 1,
    "calibration_images": 8,
    "iterations": 6,
    "batch_size": 2,
    "warmup_iterations": 2,
    "log_every": 2,
    "checkpoint_every": 3,
    "device": "cpu",
    "engine": "torchvision",
}


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "digits"})
    return str(path)


@pytest.fixture(scope="session")
def make_recipe(backbone_file):
    """Return a function that makes a tiny recipe, with fields changed."""

    def make(**changes) -> Recipe:
        return Recipe(**{**TINY, "checkpoint": backbone_file, **changes})

    return make


@pytest.fixture(scope="session", params=["torchvision", pytest.param("detectron2", marks=D2)])
def trained(request, backbone_file, tmp_path_factory):
    """Return (engine, folder, result) of a finished full-precision job, by each engine."""
    folder = tmp_path_factory.mktemp(f"fp-{request.param}")
    recipe = Recipe(**{**TINY, "engine": request.param, "checkpoint": backbone_file})
    return request.param, folder, run(recipe, folder)


@pytest.fixture(scope="session")
def make_method_recipe(make_recipe, trained):
    """Return a function that makes a recipe of a method, by the engine of `trained`."""
    engine, folder, _ = trained

    def make(method: str, **changes) -> Recipe:
        if method != "fp":
            changes = {"precision": "4w4a", "detector": str(folder / "detector.pth"), **changes}
        return make_recipe(engine=engine, method=method, **changes)

    return make


@pytest.fixture(scope="session")
def finished(trained, make_method_recipe, tmp_path_factory):
    """Return a function that gives (folder, result) of a method's finished job; only read them."""
    engine, *fp = trained
    jobs = {"fp": fp}

    def find(method: str):
        if method not in jobs:
            folder = tmp_path_factory.mktemp(f"{method}-{engine}")
            jobs[method] = folder, run(make_method_recipe(method), folder)
        return jobs[method]

    return find


@pytest.fixture(scope="session")
def scenes():
    layout = Layout(TINY["image_size"], TINY["digits_per_scene"], TINY["digit_size"])
    return load_detection("digit-scenes", "train", TINY["train_images"], layout=layout)
