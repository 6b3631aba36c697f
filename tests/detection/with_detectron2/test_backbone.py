"""Our backbones and C4 heads in Detectron2's registries: levels, features, weights, scopes."""

import pytest
import torch

from lowbit.backbones import create_backbone, pyramid
from lowbit.detection.detector.initial_weights import initialize, start_from_backbone
from lowbit.detection.detector.parts import bottom_up
from lowbit.detection.detector.quantization_report import signed_inputs
from lowbit.detection.detector.quantize import quantize_detector, quantize_layers
from lowbit.quant import Precision, get_policy, quantized_layers

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

W4A4 = Precision(4, 4)


def listed(settings):
    """Detectron2's list of keys and values."""
    return [entry for pair in settings.items() for entry in pair]


C4 = listed(
    {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.BACKBONE.NAME": "build_lowbit_backbone",
        "MODEL.LOWBIT.OUT_FEATURES": ["res4"],
        "MODEL.ROI_HEADS.NAME": "LowbitRes5ROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": 3,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 8,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[16.0]],
    }
)


def make_cfg(*opts):
    from detectron2.config import get_cfg

    from lowbit.detection.with_detectron2.config import add_lowbit_config

    cfg = get_cfg()
    add_lowbit_config(cfg)
    shared = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 32]
    shared += ["MODEL.LOWBIT.ARCHITECTURE", "resnet10_slim", "MODEL.LOWBIT.OUT_FEATURES"]
    stages = ["res4", "res5"]
    cfg.merge_from_list([*shared, stages, "MODEL.FPN.IN_FEATURES", stages, *opts])
    return cfg


def build(*opts):
    from lowbit.detection.with_detectron2.build_detector import build_detector

    return build_detector(make_cfg(*opts))


@pytest.fixture
def samples():
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    return [{"image": image.to(torch.uint8)} for image in pixels]


@pytest.mark.parametrize("architecture", ["resnet10_slim", "resnet18", "mobilenetv2"])
def test_features_are_bit_equal_to_the_backbones_own(architecture):
    from lowbit.detection.with_detectron2.backbone import build_lowbit_backbone

    names = ["res3", "res4", "res5"]
    cfg = make_cfg("MODEL.LOWBIT.ARCHITECTURE", architecture, "MODEL.LOWBIT.OUT_FEATURES", names)
    wrapped = build_lowbit_backbone(cfg).eval()
    own = create_backbone(architecture).eval()
    own.load_state_dict(wrapped.network.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        inside, outside = wrapped(x), pyramid(own, x, names)
    shapes = wrapped.output_shape()
    for name, output in outside.items():
        assert torch.equal(inside[name], output)
        assert shapes[name].channels == output.shape[1]
        assert shapes[name].stride == 64 // output.shape[-1]


@pytest.mark.parametrize(
    ("builder", "levels"),
    [
        ("build_lowbit_backbone", {"res4": 8, "res5": 16}),
        ("build_lowbit_fpn_backbone", {"p3": 8, "p4": 16, "p5": 32}),
        ("build_retinanet_lowbit_fpn_backbone", {"p3": 8, "p4": 16, "p5": 32, "p6": 64}),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_registered_backbones_have_the_levels_they_say(builder, levels, relu):
    from detectron2.modeling import build_backbone

    import lowbit.detection.with_detectron2.build_detector  # noqa: F401  (registers them)

    backbone = build_backbone(
        make_cfg("MODEL.BACKBONE.NAME", builder, "MODEL.LOWBIT.FPN_RELU", relu)
    )
    assert {name: shape.stride for name, shape in backbone.output_shape().items()} == levels
    outputs = backbone(torch.randn(1, 3, 64, 64))
    assert {name: 64 // output.shape[-1] for name, output in outputs.items()} == levels
    positive = all(bool((output >= 0).all()) for output in outputs.values())
    assert positive == (relu or builder == "build_lowbit_backbone")


def test_the_last_stage_of_a_c4_detector_is_in_its_head(backbone_file):
    """A backbone file fills both; the stage on regions computes what it does in the network."""
    model = build(*C4)
    start = start_from_backbone(backbone_file)
    initialize(model, start)
    network, res5 = bottom_up(model).eval(), model.roi_heads.res5.eval()
    assert not any(name.startswith("layer4") for name in network.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = pyramid(start.network.eval(), x, ["res4", "res5"])
        assert torch.equal(model.backbone.eval()(x)["res4"], whole["res4"])
        assert torch.equal(res5(whole["res4"]), whole["res5"])
    expected = len(start.network.state_dict())
    assert len(network.state_dict()) + len(res5.state_dict()) == expected


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_the_extra_norm_stands_behind_the_last_stage(backbone_file, norm):
    model = build(
        *C4, "MODEL.ROI_HEADS.NAME", "LowbitRes5ROIHeadsExtraNorm", "MODEL.LOWBIT.NORM", norm
    )
    initialize(model, start_from_backbone(backbone_file))
    *blocks, last = model.roi_heads.res5.named_children()
    assert last[0] == "norm" and last[1].num_features == 128 and len(blocks) == 1
    assert type(last[1]).__name__ == {"BN": "BatchNorm2d", "SyncBN": "SyncBatchNorm"}[norm]
    kinds = {type(m).__name__ for m in model.modules()} & {"BatchNorm2d", "SyncBatchNorm"}
    assert kinds == {type(last[1]).__name__}
    if norm == "BN":
        regions = model.roi_heads.res5.train()(torch.randn(6, 64, 4, 4).relu())
        torch.testing.assert_close(regions.mean((0, 2, 3)), torch.zeros(128), atol=1e-5, rtol=0)


def test_a_c4_detectors_backbone_ends_where_its_head_begins(backbone_file, samples):
    """Scope backbone leaves res5 alone although it is a stage: SSQL does not quantize ROI heads."""
    model = build(*C4)
    initialize(model, start_from_backbone(backbone_file))
    with pytest.raises(ValueError, match="no pyramid between its backbone and its heads"):
        quantize_layers(model, get_policy("lsq"), scope="backbone+neck")
    quantize_detector(model, get_policy("lsq"), W4A4, batches=[samples])
    assert len(quantized_layers(model)) == 8
    assert all(name.startswith("backbone.network.") for name in quantized_layers(model))
    model = build(*C4)
    initialize(model, start_from_backbone(backbone_file))
    quantize_detector(model, get_policy("lsq"), W4A4, batches=[samples], scope="full")
    beyond = [name for name in quantized_layers(model) if not name.startswith("backbone.")]
    res5 = [f"roi_heads.res5.0.{name}" for name in ("conv1", "conv2", "downsample.0")]
    assert sorted(beyond) == ["proposal_generator.rpn_head.conv", *res5]
    assert signed_inputs(model) == []  # everything that is quantized comes after a ReLU


@pytest.mark.parametrize("freeze_at", [4, 5])
def test_freezing_reaches_into_the_head(freeze_at):
    model = build(*C4, "MODEL.BACKBONE.FREEZE_AT", freeze_at)
    assert not any(p.requires_grad for p in bottom_up(model).parameters())
    assert all(p.requires_grad == (freeze_at < 5) for p in model.roi_heads.res5.parameters())


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (["MODEL.LOWBIT.OUT_FEATURES", ["res4", "res5"]], "set it to [res4]"),
        (["MODEL.LOWBIT.ARCHITECTURE", "mobilenetv2"], "Use a ResNet"),
        (
            [
                "MODEL.ROI_HEADS.NAME",
                "LowbitRes5ROIHeadsExtraNorm",
                "MODEL.LOWBIT.NORM",
                "FrozenBN",
            ],
            "Use BN or SyncBN",
        ),
    ],
)
def test_a_c4_detector_that_cannot_be_is_refused(opts, told):
    with pytest.raises(ValueError) as caught:
        build(*C4, *opts)
    assert told in str(caught.value)


def test_a_mask_heads_predictor_stays_and_a_mask_head_without_regions_is_refused(samples):
    settings = {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.MASK_ON": True,
        "MODEL.BACKBONE.NAME": "build_lowbit_fpn_backbone",
        "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5"],
        "MODEL.RPN.POST_NMS_TOPK_TEST": 8,
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4"],
        "MODEL.ROI_HEADS.NUM_CLASSES": 3,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 2,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    }
    model = build(*listed(settings))
    options = {"batches": [samples], "scope": "full"}
    model.roi_heads.box_predictor.test_score_thresh = 1.0
    with pytest.raises(ValueError, match=r"2 activation quantizers \(such as roi_heads.mask_head"):
        quantize_detector(model, get_policy("lsq"), W4A4, **options)
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    quantize_detector(model, get_policy("lsq"), W4A4, **options)
    heads = [name for name in quantized_layers(model) if name.startswith("roi_heads")]
    convolutions = [f"roi_heads.mask_head.mask_fcn{n}" for n in (1, 2)]
    assert sorted(heads) == ["roi_heads.box_head.fc1", "roi_heads.box_head.fc2", *convolutions]
    assert {"roi_heads.mask_head.mask_fcn1", "roi_heads.box_head.fc1"} < set(signed_inputs(model))


def test_both_engines_calibrate_to_the_same_scales(make_recipe, backbone_file, samples):
    """One backbone, one set of images: only the rounding of the normalization may differ."""
    from lowbit.detection.engines import get_engine

    start = start_from_backbone(backbone_file)
    found = []
    for name in ("detectron2", "torchvision"):
        detector = get_engine(name).build(make_recipe(engine=name), start, classes=10)
        initialize(detector, start)
        batch = samples if name == "detectron2" else [s["image"].float() / 255 for s in samples]
        quantize_detector(detector, get_policy("lsq"), W4A4, batches=[batch])
        found.append(quantized_layers(bottom_up(detector)).values())
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.w_quant.scale, b.w_quant.scale)
        torch.testing.assert_close(a.a_quant.scale, b.a_quant.scale, rtol=1e-4, atol=0)
