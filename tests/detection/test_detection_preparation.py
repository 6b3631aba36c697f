"""What a training starts from, and the quantization of its backbone."""

import pytest
import torch

from backbones import pyramid, save_backbone
from data import normalization
from detection.engines import get_engine
from detection.files import save_detector
from detection.preparation import (
    IMAGENET,
    bottom_up,
    count_quantized,
    initialize,
    normalize_images,
    quantize_detector,
    start_from_backbone,
    start_from_detector,
)
from quant import FP, Precision, get_policy, quantized_layers, set_precision

W4A4 = Precision(4, 4)


@pytest.fixture
def detector(make_recipe, backbone_file):
    recipe = make_recipe()
    start = start_from_backbone(backbone_file)
    built = get_engine("torchvision").build(recipe, start, classes=10)
    initialize(built, start)
    return built


@pytest.fixture
def images(scenes):
    return normalize_images(scenes.images[:4], normalization("digits"))


def test_a_backbone_brings_its_weights_and_its_normalization(detector, backbone_file, tmp_path):
    start = start_from_backbone(backbone_file)
    assert start.normalization == normalization("digits")
    assert start.backbone["method"] == "untrained"
    assert start.report["matched"] == start.report["total"] > 0
    loaded = bottom_up(detector).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in start.network.state_dict().items())
    save_backbone(tmp_path / "foreign.pth", start.network, {"method": "x", "data": "elsewhere"})
    assert start_from_backbone(tmp_path / "foreign.pth").normalization == IMAGENET


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
    }
    path = tmp_path / "detector.pth"
    save_detector(path, detector, meta)
    start = start_from_detector(path, engine="torchvision", backbone_sha256="a" * 64)
    assert start.backbone["method"] == "SSQL" and start.normalization[0] == (0.5,) * 3
    with pytest.raises(ValueError, match=r"from backbone aaaaaaaaaaaa.*given is bbbbbbbbbbbb"):
        start_from_detector(path, engine="torchvision", backbone_sha256="b" * 64)
    save_detector(path, detector, {**meta, "precision": "4w4a"})
    with pytest.raises(ValueError, match="starts from a full-precision one"):
        start_from_detector(path, engine="torchvision")


@pytest.mark.parametrize(("policy", "learned"), [("lsq", 22), ("tr", 11)])
def test_the_backbone_is_quantized_but_for_its_stem(detector, images, policy, learned):
    quantize_detector(detector, get_policy(policy), W4A4, batches=[images])
    layers = quantized_layers(detector)
    # Two convolutions in each of four blocks, and three 1x1 shortcuts; pyramid and heads stay.
    assert count_quantized(detector) == {"quantized_layers": 11, "learned_scales": learned}
    assert all(name.startswith("backbone.bottom_up.network.layer") for name in layers)
    assert all((layer.w_quant.bits, layer.a_quant.bits) == (4, 4) for layer in layers.values())


def test_full_precision_is_exact_after_quantizing(detector, images):
    network = bottom_up(detector).eval()
    with torch.no_grad():
        before = pyramid(network, images, ["res4", "res5"])
        quantize_detector(detector, get_policy("lsq"), W4A4, batches=[images])
        low = pyramid(network, images, ["res4", "res5"])
        set_precision(network, FP)
        after = pyramid(network, images, ["res4", "res5"])
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(torch.equal(before[name], low[name]) for name in before)


def test_calibration_moves_no_statistic_of_the_norms(detector, images):
    norms = {k: v.clone() for k, v in detector.state_dict().items() if "running" in k}
    quantize_detector(detector, get_policy("lsq"), W4A4, batches=[images])
    state = detector.state_dict()
    assert norms and all(torch.equal(state[name], norms[name]) for name in norms)


def test_the_interval_quantizer_wants_a_trainable_norm(detector, images):
    for module in bottom_up(detector).modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False)
    with pytest.raises(ValueError, match="which only a trainable batch norm"):
        quantize_detector(detector, get_policy("tr"), W4A4, batches=[images])
    assert count_quantized(detector)["quantized_layers"] == 0
    quantize_detector(detector, get_policy("lsq"), W4A4, batches=[images])  # LSQ keeps the scale


def test_images_are_normalized_as_torchvision_does(scenes):
    from torchvision.transforms.v2.functional import normalize

    constants = normalization("digits")
    ours = normalize_images(scenes.images, constants)
    theirs = normalize(scenes.images.float() / 255, *map(list, constants))
    torch.testing.assert_close(ours, theirs)
