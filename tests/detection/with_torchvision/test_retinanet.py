"""torchvision's RetinaNet around our backbones: same features, same head, levels where they belong."""

import pytest
import torch
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.transforms.v2.functional import normalize

from lowbit.backbones import create_backbone, pyramid
from lowbit.data import normalization
from lowbit.detection.detector.initial_weights import start_from_backbone
from lowbit.detection.detector.pyramid_levels import level_strides, select_levels
from lowbit.detection.engines import get_engine
from lowbit.detection.with_torchvision.retinanet import build_retinanet


def normalized(images):
    """Return uint8 images as the detector's backbone gets them."""
    return normalize(images.float() / 255, *map(list, normalization("digits")))


@pytest.fixture
def build(make_recipe):
    def make(**changes):
        network = create_backbone("resnet10_slim")
        constants = normalization("digits")
        return build_retinanet(make_recipe(**changes), network, classes=10, normalization=constants)

    return make


def test_features_are_the_backbones_own(build, scenes):
    detector = build().eval()
    x = normalized(scenes.images[:2])
    with torch.no_grad():
        inside = detector.backbone.bottom_up(x)
        outside = pyramid(detector.backbone.bottom_up.network, x, ["res4", "res5"])
    assert list(inside) == ["res4", "res5"]
    assert all(torch.equal(inside[name], outside[name]) for name in inside)


def test_the_model_normalizes_and_does_not_resize(build, scenes):
    detector = build()
    expected = normalized(scenes.images[:2])
    for mode in (True, False):
        images, _ = detector.train(mode).transform(list(scenes.images[:2].float() / 255))
        torch.testing.assert_close(images.tensors, expected)


def test_a_head_of_four_convolutions_is_torchvisions(build):
    head = build(head_convs=4, norm="none").head
    theirs = RetinaNetHead(32, head.classification_head.num_anchors, 10)
    theirs.load_state_dict(  # Conv2dNormActivation(conv, relu) against conv and relu side by side
        {_their_name(name): tensor for name, tensor in head.state_dict().items()}
    )
    features = [torch.randn(2, 32, 8, 8), torch.randn(2, 32, 4, 4)]
    ours = head(features)
    for name, output in theirs(features).items():
        assert torch.equal(ours[name], output)


def _their_name(name: str) -> str:
    subnet, part, *rest = name.split(".")
    if part != "conv":
        return name
    return ".".join([subnet, part, str(int(rest[0]) // 2), "0", rest[1]])


@pytest.mark.parametrize(
    ("changes", "strides"),
    [
        ({}, [8, 16]),
        ({"extra_levels": True}, [8, 16, 32, 64]),
        ({"features": ("res3", "res4", "res5")}, [4, 8, 16]),
    ],
)
def test_levels_have_the_strides_they_say(build, scenes, changes, strides):
    detector = build(**changes)
    x = normalized(scenes.images[:1])
    features = detector.backbone(x)
    assert detector.backbone.strides == strides
    assert [64 // f.shape[-1] for f in features.values()] == strides
    assert all(f.shape[1] == 32 for f in features.values())
    sides = [sizes[0] for sizes in detector.anchor_generator.sizes]
    assert sides == pytest.approx([1.5 * stride for stride in strides])


def test_extra_levels_come_from_the_last_stage_whatever_its_width(build):
    """torchvision would read P5 where the last stage has as many channels as the pyramid."""
    detector = build(extra_levels=True, fpn_channels=128)
    assert detector.backbone.fpn.extra_blocks.use_P5 is False


def test_levels_are_chosen_by_name_and_checked():
    network = create_backbone("resnet10_slim")
    assert [level.channels for level in select_levels(network, ("res3", "res4"))] == [32, 64]
    assert level_strides(network, ("res4", "res5"), added=2) == [8, 16, 32, 64]
    with pytest.raises(ValueError, match=r"no stage 'res6'.*res2, res3, res4, res5"):
        select_levels(network, ("res6",))


def test_a_detector_depends_on_its_seed_alone(make_recipe, backbone_file):
    engine, start = get_engine("torchvision"), start_from_backbone(backbone_file)
    torch.manual_seed(1)
    first = engine.build(make_recipe(), start, classes=10).state_dict()
    torch.manual_seed(2)
    second = engine.build(make_recipe(), start, classes=10).state_dict()
    other = engine.build(make_recipe(seed=1), start, classes=10).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_detections_are_in_cocos_format(make_recipe, backbone_file, scenes):
    engine, start = get_engine("torchvision"), start_from_backbone(backbone_file)
    detector = engine.build(make_recipe(), start, classes=10)
    detector.score_thresh = 0.0  # an untrained head is sure of nothing
    found = engine.predict(detector, scenes, make_recipe())
    assert {d["image_id"] for d in found} == set(scenes.ids)
    assert {d["category_id"] for d in found} <= set(range(1, 11))
    for detection in found:
        x, y, width, height = detection["bbox"]
        assert 0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 64
