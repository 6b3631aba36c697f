"""What each scope quantizes in each detector of each engine, and what is found while calibrating."""

import copy

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.detection.detector.initial_weights import initialize, start_from_backbone
from lowbit.detection.detector.parts import bottom_up
from lowbit.detection.detector.quantization_report import (
    count_quantized,
    describe_quantization,
    signed_inputs,
)
from lowbit.detection.detector.quantize import SCOPES, quantize_detector, quantize_layers
from lowbit.detection.engines import get_engine
from lowbit.quant import Precision, explain, get_policy, quantized_layers, set_precision
from lowbit.quant.quantizers import Quantizer
from lowbit.quant.smoothing import smoothed_layers

W4A4 = Precision(4, 4)
ENGINES = ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
DETECTORS = ["retinanet", "faster_rcnn"]

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors


@pytest.fixture(params=ENGINES)
def engine(request):
    return get_engine(request.param)


@pytest.fixture(scope="module")
def built():
    """Detectors as they were built, by what was asked for."""
    return {}


@pytest.fixture
def build(engine, make_recipe, backbone_file, built):
    """Return a function that gives a tiny detector of one's own with a backbone's weights."""

    def make(meta_architecture: str = "retinanet", **changes):
        key = engine.name, meta_architecture, repr(sorted(changes.items()))
        if key not in built:
            built[key] = make_anew(meta_architecture, **changes)
        return copy.deepcopy(built[key])

    def make_anew(meta_architecture: str, **changes):
        recipe = make_recipe(
            engine=engine.name,
            meta_architecture=meta_architecture,
            box_head_channels=32,
            regions_per_image=4,
            **changes,
        )
        start = start_from_backbone(backbone_file)
        detector = engine.build(recipe, start, classes=10)
        initialize(detector, start)
        return detector

    return make


def samples(detector, count: int = 2, **also) -> list:
    """Images as the detector takes them."""
    pixels = torch.randint(0, 256, (count, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    if hasattr(detector, "preprocess_image"):
        return [{"image": image.to(torch.uint8), **also} for image in pixels]
    return list(pixels.float() / 255)


def quantized(detector, scope: str, policy="lsq", **options):
    batches = [samples(detector)]
    policy = get_policy(policy)
    quantize_detector(detector, policy, W4A4, batches=batches, scope=scope, **options)
    return detector


def outputs(detector) -> list[torch.Tensor]:
    """Everything the heads compute before anything is sorted."""
    seen = []
    layers = [m for n, m in detector.named_modules() if n.rpartition(".")[2] in PREDICTORS]
    handles = [layer.register_forward_hook(lambda m, i, y: seen.append(y)) for layer in layers]
    with torch.no_grad():
        detector.eval()(samples(detector))
    for handle in handles:
        handle.remove()
    return seen


PREDICTORS = {
    "cls_score",
    "bbox_pred",
    "objectness_logits",
    "anchor_deltas",  # Detectron2
    "cls_logits",
    "bbox_reg",  # torchvision
}


@pytest.mark.parametrize(
    ("detector", "scope", "layers"),
    [
        # Two convolutions in each of four blocks and three 1x1 shortcuts.
        ("retinanet", "backbone", 11),
        # Two laterals, two outputs, and two added levels.
        ("retinanet", "backbone+neck", 17),
        # One convolution in each subnet.
        ("retinanet", "full", 19),
        ("faster_rcnn", "backbone", 11),
        ("faster_rcnn", "backbone+neck", 15),
        # The proposals' convolution and the two linear layers of the box head.
        ("faster_rcnn", "full", 18),
    ],
)
def test_a_scope_quantizes_its_layers_and_no_predictor(build, detector, scope, layers):
    model = quantized(build(detector, extra_levels=True), scope)
    assert count_quantized(model) == {"quantized_layers": layers, "learned_scales": 2 * layers}
    names = {name.rpartition(".")[2] for name in quantized_layers(model)}
    assert not names & PREDICTORS
    rows = {row.name: row for row in explain(model)}
    kept = sorted(name.rpartition(".")[2] for name, row in rows.items() if row.weight == "-")
    assert "conv1" in kept  # the stem
    if scope == "full":
        assert set(kept) - {"conv1"} <= PREDICTORS and len(kept) == {18: 5, 19: 3}[layers]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("relu", [False, True])
def test_signed_inputs_are_found_while_calibrating(build, detector, relu):
    """Behind the pyramid's sums, and wherever its levels go unless a ReLU stands between."""
    model = quantized(build(detector, fpn_relu=relu), "full")
    outputs = {n for n in quantized_layers(model) if "fpn_output" in n or "layer_blocks" in n}
    first = {
        "retinanet": {
            "head.cls_subnet.0",
            "head.bbox_subnet.0",
            "head.classification_head.conv.0",
            "head.regression_head.conv.0",
        },
        "faster_rcnn": {
            "proposal_generator.rpn_head.conv",
            "roi_heads.box_head.fc1",
            "rpn.head.conv.0.0",
            "roi_heads.box_head.fc6",
        },
    }[detector]
    assert len(outputs) == 2
    expected = outputs if relu else outputs | (first & quantized_layers(model).keys())
    assert set(signed_inputs(model)) == expected
    if not relu:
        assert len(expected) == 4
    for name, layer in quantized_layers(model).items():
        assert (layer.a_quant.levels()[0] < 0) == (name in expected)


@pytest.mark.parametrize(("policy", "warned"), [("coquant", True), ("lsq", False)])
def test_values_that_a_quantizer_would_cut_off_are_told(build, caplog, policy, warned):
    """PACT clips at zero, and half of what leaves the pyramid's sums is below."""
    policy = {"base": policy, "last": "fp"}
    with caplog.at_level("WARNING"):
        model = quantized(build(), "full", policy)
        quantized(build(fpn_relu=True), "backbone", policy)
    messages = [r.getMessage() for r in caplog.records if "negative values" in r.getMessage()]
    assert [m.split(" (such as")[0] for m in messages] == (["4 layers"] if warned else [])
    assert not any(layer._forward_pre_hooks for layer in quantized_layers(model).values())


def test_a_linear_bottleneck_leaves_signed_inputs(engine, make_recipe, tmp_path):
    from lowbit.backbones import create_backbone, save_backbone

    save_backbone(tmp_path / "net.pth", create_backbone("mobilenetv2"), {"method": "untrained"})
    start = start_from_backbone(str(tmp_path / "net.pth"))
    model = engine.build(make_recipe(engine=engine.name), start, classes=3)
    initialize(model, start)
    signed = signed_inputs(quantized(model, "backbone+neck"))
    assert any(name.endswith("conv_pw") for name in signed)  # an expansion reads a bottleneck
    assert not any(name.endswith("conv_dw") for name in signed)  # and has a ReLU6 behind it
    assert sum("lateral" in name or "inner" in name for name in signed) == 2


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("policy", ["lsq", "tr"])
def test_full_precision_is_exact_after_quantizing(build, detector, policy):
    """Also where a layer has its norm and activation inside, as Detectron2's Conv2d."""
    model = build(detector)
    before = outputs(model)
    low = outputs(quantized(model, "full", policy))
    set_precision(model, "FP")
    after = outputs(model)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before, low, strict=False))


def test_a_shared_head_has_one_scale_for_all_levels(build):
    """Its quantizers see each level once, and their range is that of the union."""
    model = build(norm="none", extra_levels=True)
    head = model.head
    inputs, first = [], next(m for m in head.modules() if isinstance(m, torch.nn.Conv2d))
    handle = first.register_forward_hook(lambda m, x, y: inputs.append(x[0]))
    model.eval()(samples(model))
    handle.remove()
    assert len(inputs) == 4  # two levels on stages, two added
    quantized(model, "full")
    q_p = 7
    union = torch.cat([level.flatten() for level in inputs])
    expected = 2 * union.abs().mean() / q_p**0.5  # LSQ's initial step
    torch.testing.assert_close(first.a_quant.scale, expected.reshape(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("policy", ["lsq", "tr"])
def test_every_parameter_gets_a_gradient(build, engine, detector, policy):
    """One that got none would end a distributed run; a scale that starts late would be each rank's."""
    model = quantized(build(detector, extra_levels=True), "full", policy)
    if engine.name == "detectron2":
        from detectron2.structures import Boxes, Instances
        from detectron2.utils.events import EventStorage

        truth = Instances((64, 64))
        truth.gt_boxes = Boxes(torch.tensor([[8.0, 8, 40, 40]]))
        truth.gt_classes = torch.tensor([1])
        with EventStorage(0):
            losses = model.train()(samples(model, instances=truth))
    else:
        target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
        losses = model.train()(samples(model), [target, target])
    before = {n: p.clone() for n, p in model.named_parameters() if n.endswith("q_scale")}
    sum(losses.values()).backward()
    wanted = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, p in wanted.items() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in wanted.values())
    assert all(p.dim() >= 1 for p in before.values())  # 0-dimensional ones do not promote bf16
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


def test_output_scales_stand_where_no_norm_follows(build):
    """Eq. 13 loses a layer's scale: in the pyramid and heads nothing else would restore it."""
    bare = quantized(build(norm="none"), "full", "tr")
    scaled = {n for n, layer in quantized_layers(bare).items() if layer.out_scale is not None}
    assert scaled == {n for n in quantized_layers(bare) if ".network." not in n}
    assert all(quantized_layers(bare)[n].out_scale.initialized for n in scaled)
    normed = quantized(build(norm="GN"), "backbone+neck", "tr")
    assert all(layer.out_scale is None for layer in quantized_layers(normed).values())


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_quantized_detector_is_restored_from_its_state(build, detector):
    model = quantized(build(detector), "full", "tr")
    fresh = build(detector)
    quantize_layers(fresh, get_policy("tr"), W4A4, scope="full")
    plain = set(build(detector).state_dict())
    assert plain < set(fresh.state_dict())  # names stay, quantizers' are added
    fresh.load_state_dict(model.state_dict())
    for a, b in zip(outputs(model), outputs(fresh), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(outputs(model), outputs(copy.deepcopy(model)), strict=True):
        assert torch.equal(a, b)


def test_a_rule_names_a_place_in_any_engine(build):
    rules = {"neck.output.*": "fp", "neck.lateral.1": 8}
    model = quantized(build(extra_levels=True), "full", {"base": "lsq", "rules": rules})
    assert len(quantized_layers(model)) == 17
    eight = [n for n, layer in quantized_layers(model).items() if layer.w_quant.bits == 8]
    coarse = ("backbone.fpn_lateral4", "backbone.fpn.inner_blocks.1.0")
    assert len(eight) == 1 and eight[0] in coarse


@pytest.mark.parametrize(("detector", "predictors"), [("retinanet", 2), ("faster_rcnn", 4)])
def test_predictors_follow_the_policys_last_rule(build, detector, predictors):
    """Whatever they are called: "*predictor*" in a policy means pretraining's."""
    model = quantized(build(detector), "full", {"base": "lsq", "last": 8})
    eight = [n for n, layer in quantized_layers(model).items() if layer.w_quant.bits == 8]
    assert len(eight) == predictors
    assert {name.rpartition(".")[2] for name in eight} <= PREDICTORS


@pytest.mark.parametrize("detector", DETECTORS)
def test_no_region_leaves_scales_as_they_are(build, engine, detector):
    """An empty batch of regions goes through quantized layers, and no scale becomes NaN."""
    model = quantized(build(detector), "full").train()
    layers = quantized_layers(model)
    for layer in layers.values():
        before = {n: p.clone() for n, p in layer.a_quant.state_dict().items()}
        shape = (8, 8) if isinstance(layer, torch.nn.Conv2d) else ()
        width = layer.weight.shape[1]
        empty = torch.zeros(0, width, *shape, requires_grad=True)
        layer.quantized_input(empty).sum().backward()
        assert all(torch.equal(t, before[n]) for n, t in layer.a_quant.state_dict().items())


def test_an_input_that_never_comes_is_refused(build):
    """As a mask head's without a detection: its scale would be set late, by one rank alone."""
    model = build("faster_rcnn")
    model.roi_heads.idle = torch.nn.Linear(4, 4)
    state = set(model.state_dict())
    with pytest.raises(
        ValueError, match=r"1 of \d+ layers .* passed by \(.*\.idle\).*\*roi_heads\.idle"
    ):
        quantized(model, "full")
    assert set(model.state_dict()) == state and not quantized_layers(model)


def test_frozen_weights_cannot_be_quantized_for_training(build):
    model = build(freeze_at=2)
    with pytest.raises(ValueError, match=r"2 of 11 layers to be quantized .* have frozen weights"):
        quantized(model, "backbone")
    assert count_quantized(model)["quantized_layers"] == 0
    quantized(model, "backbone", trained=False)  # calibrated only
    assert count_quantized(build_stem := quantized(build(freeze_at=1), "backbone", "tr")) == {
        "quantized_layers": 11,
        "learned_scales": 11,
    }
    assert not bottom_up(build_stem).conv1.weight.requires_grad


def test_the_interval_quantizer_wants_a_trainable_norm_behind_each_layer(build):
    with pytest.raises(ValueError, match="which only a trainable batch norm"):
        quantized(build(backbone_norm="FrozenBN"), "full", "tr")
    quantized(build(backbone_norm="FrozenBN"), "full")  # LSQ keeps the scale
    with pytest.raises(
        ValueError, match=r"those of 2 layers \(such as .*layer1.0.conv1\) are frozen"
    ):
        quantized(build(freeze_at=2), "backbone", "tr")


def test_a_scope_that_makes_no_sense_is_refused(build):
    model = build()
    with pytest.raises(ValueError, match=r"no scope 'all'.*backbone, backbone.neck, full"):
        quantize_layers(model, get_policy("lsq"), scope="all")
    for scope in SCOPES[1:]:
        with pytest.raises(ValueError, match="outputs of activation modules"):
            quantize_layers(model, get_policy("ssql"), scope=scope)
    assert not quantized_layers(model)
    quantize_layers(model, get_policy("ssql"), scope="backbone")
    assert quantized_layers(model)


def test_calibration_moves_no_statistic_of_the_norms(build):
    model = build()
    norms = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    quantized(model.train(), "full")
    state = model.state_dict()
    assert norms and all(torch.equal(state[name], norms[name]) for name in norms)
    assert model.training and all(q.bits == 4 for q in model.modules() if isinstance(q, Quantizer))


def test_a_job_is_told_what_was_quantized(build):
    told = describe_quantization(quantized(build(), "full"))
    assert told["quantized_layers"] == 17 and len(told["signed_inputs"]) == 4
    rows = {row["name"]: row for row in told["layers"]}
    assert len(rows) == 17 + 3  # the stem and two predictors are listed as well
    assert rows[told["signed_inputs"][0]]["weight_bits"] == 4


def test_no_detection_is_made_past_a_quantizer(build, engine, make_recipe, scenes):
    detector = quantized(build(), "backbone")
    recipe = make_recipe(engine=engine.name)
    engine.predict(detector, scenes, recipe)
    conv = next(layer for layer in quantized_layers(detector).values() if layer.stride == (1, 1))
    conv.forward = lambda x: torch.conv2d(x, conv.weight, padding=conv.padding)
    with pytest.raises(ValueError, match=r"^1 of 11 layers listed as quantized were passed by"):
        engine.predict(detector, scenes, recipe)
    set_precision(detector, "FP")
    engine.predict(detector, scenes, recipe)


@pytest.mark.parametrize("scope", ["backbone", "full"])
def test_a_convnexts_norms_are_smoothed(make_recipe, scope, tmp_path):
    torch.manual_seed(0)
    backbone = create_backbone("test_convnext")
    for name, parameter in backbone.named_parameters():
        if "norm" in name:  # uneven channels, so that there is something to smooth
            torch.nn.init.normal_(parameter)
    save_backbone(tmp_path / "x.pth", backbone, {"method": "untrained", "data": "-"})
    start = start_from_backbone(tmp_path / "x.pth")
    detector = get_engine("torchvision").build(make_recipe(engine="torchvision"), start, classes=10)
    initialize(detector, start)
    before = outputs(detector)
    quantized(detector, scope, {"base": "ptq", "smooth": 0.5}, trained=False)
    smoothed = smoothed_layers(bottom_up(detector)).values()
    assert sum(layer.smoothing.applied for layer in smoothed) == 9
    set_precision(detector, "FP")
    for old, new in zip(before, outputs(detector), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
