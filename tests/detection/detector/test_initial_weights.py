"""What a training starts from, and what a detector takes of it."""

from dataclasses import replace

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.data import normalization
from lowbit.detection.detector.detector_file import save_detector
from lowbit.detection.detector.initial_weights import (
    IMAGENET,
    initialize,
    start_from_backbone,
    start_from_detector,
)
from lowbit.detection.detector.parts import bottom_up
from lowbit.detection.engines import get_engine


@pytest.fixture
def detector(make_recipe, backbone_file):
    recipe = make_recipe()
    start = start_from_backbone(backbone_file)
    built = get_engine("torchvision").build(recipe, start, classes=10)
    initialize(built, start)
    return built


def test_a_backbone_brings_its_weights_and_its_normalization(detector, backbone_file, tmp_path):
    start = start_from_backbone(backbone_file)
    assert start.normalization == normalization("digits")
    assert start.backbone["method"] == "untrained"
    assert start.report["matched"] == start.report["total"] > 0
    loaded = bottom_up(detector).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in start.network.state_dict().items())
    save_backbone(tmp_path / "foreign.pth", start.network, {"method": "x", "data": "elsewhere"})
    assert start_from_backbone(tmp_path / "foreign.pth").normalization == IMAGENET


def test_a_network_brings_the_normalization_that_timm_publishes_with_it(tmp_path):
    network = create_backbone("tf_efficientnet_lite0")
    torch.save(network.state_dict(), tmp_path / "lite.pth")
    start = start_from_backbone(tmp_path / "lite.pth", "tf_efficientnet_lite0")
    assert start.normalization == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_backbone_with_a_tensor_missing_is_refused(backbone_file, tmp_path):
    content = torch.load(backbone_file, weights_only=True)
    del content["model"]["layer4.0.bn2.weight"]
    torch.save(content, tmp_path / "partial.pth")
    with pytest.raises(ValueError, match="nothing was loaded"):
        start_from_backbone(tmp_path / "partial.pth")


def test_a_start_from_a_detector_is_checked(detector, tmp_path):
    meta = {
        "engine": "torchvision",
        "precision": "FP",
        "backbone": {"method": "SSQL", "architecture": "resnet10_slim", "sha256": "a" * 64},
        "normalization": [[0.5] * 3, [0.25] * 3],
        "recipe": {"fpn_relu": False},
    }
    path = tmp_path / "detector.pth"
    save_detector(path, detector, meta)
    start = start_from_detector(path, engine="torchvision", backbone_sha256="a" * 64)
    assert start.backbone["method"] == "SSQL" and start.normalization[0] == (0.5,) * 3
    with pytest.raises(ValueError, match=r"from backbone aaaaaaaaaaaa.*given is bbbbbbbbbbbb"):
        start_from_detector(path, engine="torchvision", backbone_sha256="b" * 64)
    with pytest.raises(ValueError, match="trained with fpn_relu false, but true was requested"):
        start_from_detector(path, engine="torchvision", fpn_relu=True)
    save_detector(path, detector, {**meta, "precision": "4w4a"})
    with pytest.raises(ValueError, match="starts from a full-precision one"):
        start_from_detector(path, engine="torchvision")


def test_a_detector_takes_what_it_runs_and_nothing_else(make_recipe, backbone_file):
    """Stages that no level of the pyramid stands on are not in the detector."""
    start = start_from_backbone(backbone_file)
    built = get_engine("torchvision").build(
        make_recipe(features=("res3", "res4")), start, classes=3
    )
    initialize(built, start)
    state = bottom_up(built).state_dict()
    assert state and not any(name.startswith("layer4") for name in state)
    assert all(torch.equal(start.network.state_dict()[name], t) for name, t in state.items())
    bottom_up(built).register_buffer("unknown", torch.zeros(1))
    with pytest.raises(ValueError, match=r"1 missing \(as unknown\).*nothing was loaded"):
        initialize(built, start)


def test_frozen_norms_take_the_files_statistics(make_recipe, backbone_file, tmp_path):
    """A norm counts its batches only while it is trained; that is no reason to refuse a file."""
    network = start_from_backbone(backbone_file).network
    network.bn1.running_mean += 0.5
    save_backbone(tmp_path / "moved.pth", network, {"method": "x", "data": "digits"})
    start = start_from_backbone(tmp_path / "moved.pth")
    engine = get_engine("torchvision")
    frozen = engine.build(make_recipe(backbone_norm="FrozenBN"), start, classes=10)
    initialize(frozen, start)
    assert torch.equal(bottom_up(frozen).bn1.running_mean, network.bn1.running_mean)
    assert not any(p.requires_grad for p in bottom_up(frozen).bn1.parameters())
    trained = engine.build(make_recipe(), start, classes=10)
    initialize(trained, replace(start, state=frozen.state_dict()))
    assert torch.equal(bottom_up(trained).bn1.running_mean, network.bn1.running_mean)
