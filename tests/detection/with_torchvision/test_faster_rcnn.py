"""torchvision's Faster R-CNN around our backbones: its parts as the recipe says, labels from 0."""

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from lowbit.backbones import create_backbone
from lowbit.data import normalization
from lowbit.detection.detector.initial_weights import start_from_backbone
from lowbit.detection.engines import get_engine
from lowbit.detection.with_torchvision.faster_rcnn import build_faster_rcnn

TINY = {"meta_architecture": "faster_rcnn", "box_head_channels": 32, "regions_per_image": 8}


@pytest.fixture
def build(make_recipe):
    def make(**changes):
        network = create_backbone("resnet10_slim")
        constants = normalization("digits")
        recipe = make_recipe(**TINY, **changes)
        return build_faster_rcnn(recipe, network, classes=10, normalization=constants)

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = list(torch.rand(2, 3, 64, 64, generator=generator))
    boxes = torch.tensor([[8.0, 8, 40, 36], [30, 20, 60, 60]])
    return images, [{"boxes": boxes[i : i + 1], "labels": torch.tensor([9 * i])} for i in (0, 1)]


def test_it_is_torchvisions_but_for_the_labels(build, batch):
    """The same weights in torchvision's own constructor: same losses, its labels one higher."""
    ours = build(norm="none")
    theirs = FasterRCNN(
        ours.backbone,
        min_size=64,
        max_size=64,
        image_mean=list(normalization("digits")[0]),
        image_std=list(normalization("digits")[1]),
        rpn_anchor_generator=AnchorGenerator(
            tuple((1.5 * s, 2.2 * s, 3.2 * s) for s in (8, 16, 32)), ((1.0, 2.0),) * 3
        ),
        rpn_post_nms_top_n_train=1000,
        box_roi_pool=MultiScaleRoIAlign(["res4", "res5"], 7, sampling_ratio=0),
        box_head=ours.roi_heads.box_head,
        box_predictor=ours.roi_heads.box_predictor,
        box_batch_size_per_image=8,
        _skip_resize=True,  # choosing a size would draw a random number
    )
    theirs.load_state_dict(ours.state_dict())
    images, targets = batch
    found = []
    for detector, shift in ((ours, 0), (theirs, 1)):
        torch.manual_seed(0)  # proposals and regions are sampled
        moved = [{**target, "labels": target["labels"] + shift} for target in targets]
        found.append(detector.train()(images, moved))
    assert found[0].keys() == found[1].keys()
    for name, loss in found[0].items():
        torch.testing.assert_close(loss, found[1][name])
    for detector in (ours, theirs):
        detector.eval().roi_heads.score_thresh = 0.0
    with torch.no_grad():
        one, other = ours(images)[0], theirs(images)[0]
    assert torch.equal(one["boxes"], other["boxes"]) and len(one["boxes"]) > 0
    assert torch.equal(one["labels"], other["labels"] - 1)
    assert int(one["labels"].min()) >= 0


def test_labels_given_are_left_alone(build, batch):
    images, targets = batch
    build().train()(images, targets)
    assert [target["labels"].tolist() for target in targets] == [[0], [9]]


def test_regions_are_pooled_from_the_stages_levels(build):
    """The added level serves proposals alone, as in Detectron2."""
    detector = build()
    assert detector.backbone.strides == [8, 16, 32]
    features = detector.backbone(torch.rand(1, 3, 64, 64))
    assert [64 // f.shape[-1] for f in features.values()] == [8, 16, 32]
    assert detector.roi_heads.box_roi_pool.featmap_names == ["res4", "res5"]
    sides = [sizes[0] for sizes in detector.rpn.anchor_generator.sizes]
    assert sides == pytest.approx([12, 24, 48])


def test_what_is_learned_is_found_again(make_recipe, backbone_file, tmp_path):
    """Two images by heart: the classes come out as they went in, and not one too high."""
    from types import SimpleNamespace

    from lowbit.detection.with_torchvision.engine import fit

    torch.manual_seed(0)
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pixels[0, :, 8:40, 8:40], pixels[1, :, 24:56, 24:56] = 255, 120
    boxes = torch.tensor([[[8.0, 8, 40, 40]], [[24.0, 24, 56, 56]]])
    images = SimpleNamespace(
        image=pixels.__getitem__,
        boxes=boxes,
        labels=torch.tensor([[0], [9]]),
        ids=(7, 8),
        annotated=(0, 1),
        category_ids=tuple(range(1, 11)),
    )
    images = type("Set", (), {**vars(images), "__len__": lambda self: 2})()
    recipe = make_recipe(**TINY, iterations=25, batch_size=2, lr=0.05, weight_decay=0.0)
    engine = get_engine("torchvision")
    detector = engine.build(recipe, start_from_backbone(backbone_file), classes=10)
    fit(detector, recipe, images, tmp_path, lambda detector: {})
    detector.roi_heads.score_thresh = 0.0
    best = {}
    for detection in engine.predict(detector, images, recipe):
        best.setdefault(detection["image_id"], detection)
    assert {image_id: d["category_id"] for image_id, d in best.items()} == {7: 1, 8: 10}
