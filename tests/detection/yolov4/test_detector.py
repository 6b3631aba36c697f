"""YOLOv4 in both engines: one detector, quantized, stopped, scored and exported as the others are."""

import json

import numpy as np
import pytest
import torch

from lowbit.common.preemption import Preempted
from lowbit.detection import run, work
from lowbit.detection.detector.detector_file import read_detector
from lowbit.detection.detector.initial_weights import initialize, start_from_random
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.engine_contract import calibration_batches
from lowbit.detection.engines import get_engine
from lowbit.detection.stage import load_start
from lowbit.detection.trained_detector import load_trained
from lowbit.detection.yolov4 import path_aggregation
from lowbit.detection.yolov4.path_aggregation import _alternating as alternating
from lowbit.quant import Precision, explain, get_policy, quantized_layers
from tests.detection.stopping import signal_in
from tests.exact_networks import exact_images, make_exact
from tests.onnx_operators import operators_read_once  # noqa: F401

D2 = pytest.mark.detectron2
ENGINES = ["torchvision", pytest.param("detectron2", marks=D2)]
NECK = 32  # convolutions


def built(recipe, scenes, **quantization):
    """Return engine and detector of a recipe, quantized if asked."""
    engine, start = get_engine(recipe.engine), load_start(recipe)
    detector = engine.build(recipe, start, classes=len(scenes.classes))
    initialize(detector, start)
    if quantization:
        quantize_detector(
            detector, batches=calibration_batches(engine, scenes, recipe), **quantization
        )
    return engine, detector


@D2
def test_both_engines_have_one_detector(make_yolov4, scenes):
    """The same names and weights give the same losses and the same detections."""
    ours, theirs = (built(make_yolov4(engine=e), scenes) for e in ("torchvision", "detectron2"))
    ours[1].load_state_dict(theirs[1].state_dict())
    targets = [
        {"boxes": b, "labels": k} for b, k in zip(scenes.boxes[:4], scenes.labels[:4], strict=True)
    ]
    found = ours[1].train()(ours[0].inputs(scenes, range(4), make_yolov4()), targets)
    records = theirs[0].inputs(scenes, range(4), make_yolov4())
    for record, target in zip(records, targets, strict=True):
        from detectron2.structures import Boxes, Instances

        fields = {"gt_boxes": Boxes(target["boxes"]), "gt_classes": target["labels"]}
        record["instances"] = Instances((64, 64), **fields)
    expected = theirs[1].train()(records)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
    detections = [e.predict(d, scenes, make_yolov4()) for e, d in (ours, theirs)]
    assert len(detections[0]) > 100
    scores = [sorted(d["score"] for d in each) for each in detections]
    np.testing.assert_allclose(*scores, rtol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("scope", "layers"), [("backbone", 11), ("backbone+neck", 11 + NECK), ("full", 11 + NECK + 3)]
)
def test_a_scope_quantizes_its_layers_and_no_predictor(make_yolov4, scenes, engine, scope, layers):
    recipe = make_yolov4(engine=engine)
    _, detector = built(
        recipe, scenes, policy=get_policy("lsq"), precision=Precision(4, 4), scope=scope
    )
    found = quantized_layers(detector)
    assert len(found) == layers
    assert not [name for name in found if "predictor" in name]
    assert scope == "backbone" or any("aggregation.spp_in" in name for name in found)
    kept = {row.name.rpartition(".")[2] for row in explain(detector) if row.weight == "-"}
    assert kept == ({"conv1", "predictor"} | ({"conv"} if scope != "full" else set()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("relu", [False, True])
def test_a_relu_leaves_the_heads_inputs_without_a_sign(make_yolov4, scenes, engine, relu):
    recipe = make_yolov4(engine=engine, fpn_relu=relu)
    _, detector = built(
        recipe, scenes, policy=get_policy("lsq"), precision=Precision(4, 4), scope="full"
    )
    heads = [m for name, m in quantized_layers(detector).items() if name.startswith("head.")]
    assert [m.a_quant.signed for m in heads] == [not relu] * 3


def test_rules_name_layers_of_the_neck(make_yolov4, scenes):
    policy = get_policy({"base": "lsq", "rules": {"neck.merge_up.*": "fp", "head.*": "fp"}})
    _, detector = built(
        make_yolov4(), scenes, policy=policy, precision=Precision(4, 4), scope="full"
    )
    on = {name for name, m in quantized_layers(detector).items() if m.w_quant.bits < 32}
    assert len(on) == 11 + NECK - 10 and not any("merge_up" in name for name in on)


# In the first iteration and in the last of all, and in one with a state.
@pytest.mark.parametrize(("method", "stops"), [("lsq", (1, 6)), ("sgdt", (3,))])
def test_a_stopped_run_ends_in_the_same_bits(method, stops, make_method, tmp_path, monkeypatch):
    more = {"scope": "full"} if method == "lsq" else {}
    recipe = make_method(method, yolov4={"mosaic": 0.5}, **more)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    straight = run(recipe, whole)
    begun = signal_in(monkeypatch, recipe.engine, stops)
    for stop in stops:
        with pytest.raises(Preempted, match=f"after iteration {stop} of 6"):
            run(recipe, cut)
    resumed = run(recipe, cut)
    assert begun == list(range(1, 7))
    states = [read_detector(f / "detector.pth", engine=recipe.engine)[0] for f in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert straight["measurements"] == resumed["measurements"]
    lines = [(folder / "metrics.jsonl").read_text() for folder in (whole, cut)]
    assert lines[0] == lines[1]


def test_a_job_is_plain_and_names_its_anchors_and_losses(trained_yolov4):
    _, folder, result = trained_yolov4
    assert json.loads(json.dumps(result)) == result
    assert result["details"]["anchors"][0] == [12.0, 16.0]
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss_box_reg", "loss_obj", "loss_cls"} < line.keys()


def test_anchors_of_the_training_boxes_stay_with_the_detector(make_yolov4, make_method, tmp_path):
    """A detector trained from another's file has that one's anchors, whatever the recipe says."""
    engine = make_method("fp").engine
    clustered = make_yolov4(engine=engine, yolov4={"anchors": "kmeans"}, iterations=1)
    folders = [tmp_path / name for name in ("fp", "lsq")]
    for folder in folders:
        folder.mkdir()
    first = run(clustered, folders[0])["details"]["anchors"]
    assert len(first) == 9 and all(
        8 <= side <= 40 for shape in first for side in shape
    )  # digits of 16 to 32 pixels
    detector = str(folders[0] / "detector.pth")
    low = run(make_method("lsq", detector=detector, iterations=1), folders[1])
    assert low["details"]["anchors"] == first
    loaded, _ = load_trained(detector, engine=get_engine(engine), device="cpu")
    torch.testing.assert_close(loaded.head.anchors, torch.tensor(first), atol=0.006, rtol=0)


def test_ptq_scores_one_detector_at_every_precision(make_method, trained_yolov4, tmp_path):
    recipe = make_method("ptq", precision="FP", precisions=("FP", "8w8a", "3w3a"))
    result = run(recipe, tmp_path)
    by_precision = {}
    for m in result["measurements"]:
        by_precision.setdefault(m["precision"], {})[m["metric"]] = m["value"]
    assert by_precision["FP"] == {
        m["metric"]: m["value"] for m in trained_yolov4[2]["measurements"]
    }
    found = [(tmp_path / f"detections_{p}.json").read_text() for p in by_precision]
    assert len(set(found)) == 3


@pytest.mark.parametrize("method", ["pact", "dorefa", "ewgs", "tr", "lsqplus"])
def test_every_method_trains(method, make_method, tmp_path):
    result = run(make_method(method, iterations=2), tmp_path)
    assert result["details"]["quantized_layers"] == 11


def shallow(inputs, channels, *, count, norm):
    """The first of the neck's convolutions that take turns."""
    return alternating(inputs, channels, count=1, norm=norm)


def half_as_deep(inputs, channels, *, count, norm):
    """All convolutions that take turns where they are three, the first where they are five."""
    return alternating(inputs, channels, count=count if count == 3 else 1, norm=norm)


@pytest.mark.parametrize(
    ("engine", "scope", "blocks"),
    [
        ("torchvision", "backbone+neck", half_as_deep),  # the others are a repeat
        pytest.param("detectron2", "backbone", shallow, marks=D2),
    ],
)
def test_the_exported_graphs_levels_are_the_simulations(
    make_yolov4, scenes, engine, scope, blocks, monkeypatch
):
    monkeypatch.setattr(path_aggregation, "_alternating", blocks)
    for needed in ("onnxscript", "openvino", "onnxruntime"):
        pytest.importorskip(needed)
    from lowbit.detection.exported_detector import export_pyramid
    from lowbit.export.runtime import get_runtime

    recipe = make_yolov4(engine=engine)
    policy, four = get_policy("lsq"), Precision(4, 4)
    engine, detector = built(
        recipe, scenes, policy=policy, precision=four, scope=scope, trained=False
    )
    make_exact(detector.eval())
    exported = export_pyramid(detector)
    assert exported.outputs == ("p2", "p3", "p4")
    for runtime in ("onnxruntime", "openvino"):
        session = get_runtime(runtime).load(exported.model, threads=1)
        for x in (exact_images(2, 3, 64, 64), exact_images(1, 3, 64, 128)):
            with torch.no_grad():
                levels = list(detector.backbone(x).values())
            found = session.run(x.numpy())
            for y, level in zip(found, levels, strict=True):
                assert level.std() > 0.01
                np.testing.assert_allclose(y, level.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_graph_gives_is_what_is_scored(make_yolov4, scenes, engine):
    pytest.importorskip("onnxscript")
    from lowbit.detection.exported_detector import computed_by

    recipe = make_yolov4(engine=engine)
    engine, detector = built(recipe, scenes)
    backbone, asked = detector.eval().backbone, []

    def run(x):
        asked.append(x.shape)
        return list(backbone(x).values())

    expected = engine.predict(detector, scenes, recipe)
    with computed_by(detector, run):
        found = engine.predict(detector, scenes, recipe)
    assert asked == [(len(scenes), 3, 64, 64)] and found == expected != []
    with computed_by(detector, lambda x: [level + 1 for level in backbone(x).values()]):
        assert engine.predict(detector, scenes, recipe) != expected


@pytest.mark.parametrize("fields", [{}, {"fpn_channels": 32, "image_size": 128}])
def test_a_pass_is_counted_as_the_real_detectors(make_yolov4, fields):
    from torch.utils.flop_counter import FlopCounterMode

    recipe = make_yolov4(
        checkpoint=None,
        random_backbone=True,
        architecture="resnet10_slim",
        **{"iterations": 1, "test_images": 1, "batch_size": 1, **fields},
    )
    start = start_from_random("resnet10_slim")
    detector = get_engine("torchvision").build(recipe, start, classes=20).eval()
    side = recipe.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector([torch.rand(3, side, side)])
    assert work(recipe).operations / 4 == pytest.approx(counter.get_total_flops(), rel=0.02)
    parameters = sum(p.numel() for p in detector.parameters())
    assert work(recipe).disk == pytest.approx(4 * 4 * parameters, rel=0.01)
