"""A Faster R-CNN quantized as a whole, from its backbone to its file, by each engine."""

import json

import pytest
import torch

from lowbit.detection import run
from lowbit.detection.engines import get_engine
from lowbit.detection.trained_detector import load_trained
from lowbit.quant import quantized_layers

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors

FASTER_RCNN = {
    "meta_architecture": "faster_rcnn",
    "box_head_channels": 32,
    "regions_per_image": 8,
    "fpn_relu": True,
    "iterations": 4,
    "train_images": 8,
    "test_images": 2,
    "calibration_images": 4,
}


@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_a_quantized_faster_rcnn_is_trained_written_and_rebuilt(make_recipe, tmp_path, engine):
    first, second = tmp_path / "fp", tmp_path / "lsq"
    for folder in (first, second):
        folder.mkdir()
    run(make_recipe(engine=engine, **FASTER_RCNN), first)
    quantized = {"method": "lsq", "precision": "4w4a", "scope": "full"}
    recipe = make_recipe(
        engine=engine, **FASTER_RCNN, **quantized, detector=str(first / "detector.pth")
    )
    details = json.loads(json.dumps(run(recipe, second)["details"]))
    assert details["quantized_layers"] == 18 and details["learned_scales"] == 36
    assert len(details["signed_inputs"]) == 2  # the pyramid's outputs
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    losses = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    assert losses < lines[-2].keys() and all(lines[-2][name] >= 0 for name in losses)
    detector, made = load_trained(second / "detector.pth", engine=get_engine(engine), device="cpu")
    assert made.scope == "full" and len(quantized_layers(detector)) == 18
    file = torch.load(second / "detector.pth", weights_only=True)
    assert all(torch.equal(file["model"][k], v) for k, v in detector.state_dict().items())
    start = torch.load(first / "detector.pth", weights_only=True)["model"]
    moved = [
        n
        for n in quantized_layers(detector)
        if not torch.equal(start[f"{n}.weight"], file["model"][f"{n}.weight"])
    ]
    assert len(moved) == 18
