"""Detectors whose pyramid is an exported graph, against the detectors themselves."""

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.detection.detector.initial_weights import initialize
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.engine_contract import calibration_batches
from lowbit.detection.engines import get_engine
from lowbit.detection.scoring.same_detections import shared
from lowbit.detection.stage import load_start
from lowbit.quant import Precision, get_policy, quantized_layers, set_precision
from tests.exact_networks import exact_images, make_exact
from tests.onnx_operators import operators_read_once  # noqa: F401

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

from lowbit.detection.exported_detector import (
    PyramidExporter,
    computed_by,
    export_pyramid,
    score_exported,
)
from lowbit.export.onnx_export import ExportError
from lowbit.export.runtime import get_runtime

D2 = pytest.mark.detectron2


@pytest.fixture
def build(make_recipe, trained, scenes):
    """Return a function that quantizes the trained detector: (engine, recipe, detector)."""
    name, folder, _ = trained

    def make(policy, precision, scope="backbone"):
        recipe = make_recipe(
            engine=name,
            method="ptq",
            precisions=[precision],
            policy=policy,
            scope=scope,
            detector=str(folder / "detector.pth"),
        )
        engine = get_engine(name)
        start = load_start(recipe)
        detector = engine.build(recipe, start, classes=len(scenes.classes))
        initialize(detector, start)
        quantize_detector(
            detector,
            get_policy(policy),
            Precision.parse(precision),
            batches=calibration_batches(engine, scenes, recipe),
            scope=scope,
            trained=False,
        )
        return engine, recipe, detector.eval()

    return make


def leave_out_group_norms(network):
    for module in [*network.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())


@pytest.mark.parametrize("name", ["torchvision", pytest.param("detectron2", marks=D2)])
def test_the_graphs_levels_are_the_simulations_whatever_was_traced_first(
    make_recipe, scenes, name, monkeypatch
):
    engine, recipe = get_engine(name), make_recipe(engine=name)
    detector = engine.build(recipe, load_start(recipe), classes=len(scenes.classes))
    leave_out_group_norms(detector.backbone)  # their sums are not exact
    quantize_detector(
        detector,
        get_policy("lsq"),
        Precision(4, 4),
        batches=calibration_batches(engine, scenes, recipe),
        scope="backbone+neck",
        trained=False,
    )
    make_exact(detector.eval())
    exporter = PyramidExporter(detector)
    set_precision(detector, "3w3a")
    other = exporter.export()
    set_precision(detector, "4w4a")
    monkeypatch.delattr(
        torch.onnx, "export"
    )  # a precision with the same quantizers on needs no trace
    exported = exporter.export()
    assert exported.layers == other.layers and exported.model != other.model
    assert exported.outputs == ("p3", "p4") and len(exported.model) < 1.5e6
    layers = quantized_layers(detector.backbone).items()
    active = [f"backbone.{name}" for name, layer in layers if layer.w_quant.active]
    assert sorted(exported.layers) == sorted(active) != []
    session = get_runtime("openvino").load(exported.model, threads=1)
    for size in ((2, 3, 64, 64), (1, 3, 32, 64), (2, 3, 64, 128)):
        x = exact_images(*size)
        with torch.no_grad():
            levels = list(detector.backbone(x).values())
        for y, level in zip(session.run(x.numpy()), levels, strict=True):
            assert level.std() > 0.01
            np.testing.assert_allclose(y, level.numpy(), rtol=1e-6, atol=1e-6)


def test_average_precision_of_the_graph_is_the_simulations(build, scenes):
    precision = Precision.parse("8w8a")
    engine, recipe, detector = build("ssql", "8w8a")
    session = get_runtime("openvino").load(export_pyramid(detector).model, threads=1)
    found = score_exported(engine, detector, recipe, scenes, session, precision=precision)
    before, after = found.simulated["AP50"], found.exported["AP50"]
    assert abs(after["value"] - before["value"]) <= max(before.get("stderr") or 0, 0.01)


class Instead:
    """Stands for a session: computes the levels of a detector itself, and then changes them."""

    def __init__(self, detector, change):
        self.backbone, self.change = detector.backbone, change

    @torch.no_grad()
    def run(self, images):
        levels = self.backbone(torch.from_numpy(images)).values()
        return [self.change(level).numpy() for level in levels]


@pytest.mark.parametrize("scope", ["backbone", "backbone+neck"])
def test_what_the_graph_gives_is_what_is_scored(build, scenes, scope, monkeypatch):
    monkeypatch.setitem(shared.__kwdefaults__, "score", 0.0)  # ten iterations make nothing sure
    precision = Precision.parse("4w4a")
    engine, recipe, detector = build("lsq", "4w4a", scope)

    def score(change):
        session = Instead(detector, change)
        return score_exported(engine, detector, recipe, scenes, session, precision=precision)

    same, other = score(lambda level: level), score(torch.zeros_like)
    expected = engine.predict(detector, scenes, recipe)
    assert same.exported == same.simulated == other.simulated
    assert same.agreement.first == same.agreement.second == same.agreement.pairs == len(expected)
    assert other.agreement.first == len(expected)
    assert other.noise_floor == same.noise_floor
    if expected:  # Detectron2's finds nothing after ten iterations
        assert other.agreement.pairs < len(expected)


def test_what_else_a_detector_asks_of_its_backbone_is_answered(build, scenes):
    engine, recipe, detector = build("lsq", "4w4a")
    backbone, asked = detector.backbone, []

    def run(x):
        asked.append(x.shape)
        return list(backbone(x).values())

    expected = engine.predict(detector, scenes, recipe)
    with computed_by(detector, run):
        assert detector.backbone.bottom_up is backbone.bottom_up
        found = engine.predict(detector, scenes, recipe)
    assert detector.backbone is backbone and asked == [(len(scenes), 3, 64, 64)]
    assert found == expected


@pytest.mark.parametrize("trained", ["torchvision"], indirect=True)
def test_what_has_no_integers_is_refused_by_layer(build):
    _, _, detector = build("cq", "4w4a")
    with pytest.raises(ExportError, match=r"backbone\.bottom_up\.network\..*a_quant: "):
        export_pyramid(detector)


@pytest.mark.parametrize("name", ["torchvision", pytest.param("detectron2", marks=D2)])
def test_levels_are_named_by_their_strides_in_every_detector(make_recipe, scenes, name):
    recipe = make_recipe(engine=name, meta_architecture="faster_rcnn")
    engine, start = get_engine(name), load_start(recipe)
    detector = engine.build(recipe, start, classes=len(scenes.classes)).eval()
    exported = export_pyramid(detector)
    assert exported.outputs == ("p3", "p4", "p5")
    x = torch.randn(1, 3, 96, 64)
    found = get_runtime("onnxruntime").load(exported.model, threads=1).run(x.numpy())
    with torch.no_grad():
        levels = detector.backbone(x).values()
    for y, level, stride in zip(found, levels, (8, 16, 32), strict=True):
        assert y.shape == (1, 32, 96 // stride, 64 // stride)
        np.testing.assert_allclose(y, level.numpy(), rtol=1e-3, atol=1e-4)
