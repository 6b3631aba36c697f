"""A YOLOv4 small enough to train six iterations in seconds, by either engine."""

import pytest

from lowbit.detection import Recipe, run
from tests.detection.conftest import D2, TINY

YOLOV4 = {
    **TINY,
    "meta_architecture": "yolov4",
    "features": ("res3", "res4", "res5"),  # strides 4, 8 and 16 in resnet10_slim
    "fpn_channels": 8,
    "norm": "BN",
    "head_convs": 2,  # the default, which YOLOv4 does not have
    "train_sizes": (64,),
    "lr": 1e-3,
}


@pytest.fixture
def make_yolov4(backbone_file):
    """Return a function that makes a tiny recipe, with fields changed."""

    def make(**changes) -> Recipe:
        start = {} if "detector" in changes else {"checkpoint": backbone_file}
        return Recipe(**{**YOLOV4, **start, **changes})

    return make


@pytest.fixture(scope="session", params=["torchvision", pytest.param("detectron2", marks=D2)])
def trained_yolov4(request, backbone_file, tmp_path_factory):
    """Return (engine, folder, result) of a finished full-precision job, by each engine."""
    folder = tmp_path_factory.mktemp(f"yolov4-{request.param}")
    recipe = Recipe(**{**YOLOV4, "engine": request.param, "checkpoint": backbone_file})
    return request.param, folder, run(recipe, folder)


@pytest.fixture
def make_method(make_yolov4, trained_yolov4):
    """Return a function that makes a recipe of a method, by the engine of `trained_yolov4`."""
    engine, folder, _ = trained_yolov4

    def make(method: str, **changes) -> Recipe:
        if method != "fp":
            changes = {"precision": "4w4a", "detector": str(folder / "detector.pth"), **changes}
        return make_yolov4(engine=engine, method=method, **changes)

    return make
