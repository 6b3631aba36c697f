"""With quantization off, our detectors take the step that Detectron2's own take, weight for weight."""

import re

import pytest
import torch

from lowbit.backbones import create_backbone

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

COMMON = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.RETINANET.NUM_CLASSES": 3,
    "MODEL.RETINANET.NUM_CONVS": 1,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16.0, 24.0]],
}
FPN = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
}
RETINANET = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
}
RES4 = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 4,
}
STAGES = ["res2", "res3", "res4", "res5"]
# settings, the kind of backbone (`build_resnet_...` is Detectron2's), the stages it starts from
DETECTORS = {
    "retinanet": (RETINANET, "build_retinanet_{}_fpn_backbone", STAGES[1:]),
    "faster_rcnn": (FPN, "build_{}_fpn_backbone", STAGES),
    "mask_rcnn": ({**FPN, "MODEL.MASK_ON": True}, "build_{}_fpn_backbone", STAGES),
    "c4": (RES4, "build_{}_backbone", ["res4"]),
}


def _cfg(settings: dict):
    from detectron2.config import get_cfg

    from lowbit.detection.with_detectron2.config import add_lowbit_config

    cfg = get_cfg()
    add_lowbit_config(cfg)
    cfg.merge_from_list([entry for pair in (COMMON | settings).items() for entry in pair])
    return cfg


def _pair(detector: str, depth: int, norm: str):
    """Ours, and Detectron2's with the same weights."""
    from lowbit.detection.with_detectron2.build_detector import build_detector

    settings, backbone, stages = DETECTORS[detector]
    ours = {
        "MODEL.BACKBONE.NAME": backbone.format("lowbit"),
        "MODEL.LOWBIT.ARCHITECTURE": f"resnet{depth}",
        "MODEL.LOWBIT.OUT_FEATURES": stages,
        "MODEL.LOWBIT.NORM": norm,
    }
    if detector == "c4":
        ours["MODEL.ROI_HEADS.NAME"] = "LowbitRes5ROIHeads"
    stock = {
        "MODEL.BACKBONE.NAME": backbone.format("resnet"),
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.OUT_FEATURES": stages,
        "MODEL.RESNETS.NORM": norm,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256 if depth == 50 else 64,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,  # torchvision's layout
    }
    ours, stock = (build_detector(_cfg(settings | own)) for own in (ours, stock))
    _shake(ours)
    state = {_their_name(name): tensor for name, tensor in ours.state_dict().items()}
    missing, unexpected = stock.load_state_dict(state, strict=False)
    assert not missing and all("num_batches_tracked" in name for name in unexpected)
    return ours, stock


def _shake(model) -> None:
    """Make every layer matter.

    As built, frozen norms change nothing, the last norm of each block is zero, and heads say nearly
    nothing: other strides would come to the same losses.
    """
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
        elif name.endswith("weight") and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.0, generator=generator)
        elif name.endswith("weight") and ("head." in name or "predictor." in name):
            tensor *= 0.1 / tensor.std()


def _their_name(name: str) -> str:
    """A parameter's name in Detectron2's ResNet, from torchvision's."""
    if ".network." not in name and ".res5." not in name:
        return name
    name = name.replace("network.", "")
    name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    return re.sub(r"(backbone\.(?:bottom_up\.)?)conv1", r"\1stem.conv1", name)


def _batch() -> list[dict]:
    from detectron2.structures import BitMasks, Boxes, Instances

    generator = torch.Generator().manual_seed(0)
    batch = []
    for corners in ([[8.0, 8, 40, 36], [30, 20, 60, 60]], [[4.0, 10, 30, 50]]):
        instances = Instances((64, 64))
        instances.gt_boxes = Boxes(torch.tensor(corners))
        instances.gt_classes = torch.arange(len(corners))
        masks = torch.zeros(len(corners), 64, 64, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
            mask[int(y1) : int(y2), int(x1) : int(x2) - 4] = True
        instances.gt_masks = BitMasks(masks)
        pixels = torch.randint(0, 256, (3, 64, 64), generator=generator).to(torch.uint8)
        batch.append({"image": pixels, "instances": instances, "height": 64, "width": 64})
    return batch


def _step(model) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses of one step, and the weights after it."""
    from detectron2.utils.events import EventStorage

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(0)  # proposals and regions are sampled
    with EventStorage(0):
        losses = model.train()(_batch())
    sum(losses.values()).backward()
    optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}, model.state_dict()


@pytest.mark.parametrize(
    ("detector", "depth", "norm"),
    [
        ("retinanet", 50, "BN"),
        ("retinanet", 18, "FrozenBN"),
        ("faster_rcnn", 50, "BN"),
        ("mask_rcnn", 18, "BN"),
        ("c4", 50, "BN"),
    ],
)
def test_one_step_is_detectron2s_own(detector, depth, norm):
    ours, stock = _pair(detector, depth, norm)
    our_losses, our_state = _step(ours)
    their_losses, their_state = _step(stock)
    assert our_losses == pytest.approx(their_losses, rel=1e-5, abs=1e-5)
    assert len(our_losses) == {"retinanet": 2, "faster_rcnn": 4, "mask_rcnn": 5, "c4": 5}[detector]
    assert all(value > 0 for value in our_losses.values())
    renamed = {_their_name(name): tensor for name, tensor in our_state.items()}
    for name, tensor in their_state.items():
        torch.testing.assert_close(renamed[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_features_are_torchvisions_bit_for_bit(depth):
    """Also where the stride sits: Detectron2's own default puts it elsewhere in a bottleneck."""
    import torchvision

    from lowbit.detection.with_detectron2.backbone import build_lowbit_backbone

    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    own = {"MODEL.LOWBIT.ARCHITECTURE": f"resnet{depth}", "MODEL.LOWBIT.OUT_FEATURES": STAGES}
    cfg = _cfg(own)
    ours = build_lowbit_backbone(cfg).eval()
    state = {n: t for n, t in theirs.state_dict().items() if not n.startswith("fc.")}
    ours.network.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = ours(x)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for name, layer in zip(STAGES, ("layer1", "layer2", "layer3", "layer4"), strict=True):
            x = getattr(theirs, layer)(x)
            assert torch.equal(found[name], x)
    assert create_backbone(f"resnet{depth}").state_dict().keys() == state.keys()
