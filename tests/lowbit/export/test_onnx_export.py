"""Exported graphs against the networks they come from, computed by ONNX Runtime without optimizations."""

from functools import cache, partial
from unittest.mock import patch

import numpy as np
import pytest
import timm
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.backbones.networks import mobilenetv2_kuangliu
from lowbit.quant import calibrate, quantize
from lowbit.quant.adaptive import make_adaptive

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from lowbit.export.marks import marked_names  # noqa: E402
from lowbit.export.onnx_export import (  # noqa: E402
    ExportError,
    Trace,
    export_network,
    trace_network,
)
from lowbit.export.runtime import CODES, get_runtime, on_integers  # noqa: E402
from tests.exact_networks import exact_images, make_exact  # noqa: E402
from tests.onnx_operators import operators_read_once  # noqa: E402, F401


class Block(nn.Module):
    """A residual block with every kind of layer: grouped, biased, shared, with and without norms."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1, bias=False)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act1(self.stem(x))
        x = self.act2(self.norm(self.conv(x)) + x)
        x = self.shared(self.shared(x))
        return self.fc(x.mean((2, 3)))


def trained(net):
    """Statistics as training leaves them: a fifth of the factors negative."""
    generator = torch.Generator().manual_seed(3)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, -0.3, 1.2),
                (norm.bias, -1, 1),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return net


def quantized(net, policy, precision, size=12):
    torch.manual_seed(0)
    images = torch.randn(8, 3, size, size)
    net = quantize(trained(net), policy, precision)
    if precision != "FP":
        calibrate(net, [images])
    return net.eval(), images


@cache
def exported_block(policy, precision, last="target"):
    """A block, its images and its export; not to be changed."""
    torch.manual_seed(0)
    net, images = quantized(Block(), {"base": policy, "last": last}, precision)
    return net, images, export_network(net, images)


def computed(model, images):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


def same(model, net, images):
    """Whether outputs agree for all images but those in which a rounding tie fell the other way."""
    with torch.no_grad():
        expected = net(images).numpy()
    found = computed(model, images)[0]
    return np.isclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()).all(1)


def code_bytes(model):
    """Bytes of the weights' codes as the file stores them."""
    stored = onnx.load_from_string(model).graph.initializer
    return sum(len(i.raw_data) for i in stored if i.name.endswith(CODES))


@pytest.mark.parametrize(
    ("policy", "precision"),
    [("lsq", "FP"), ("ssql", "8w8a"), ("ssql", "3w3a"), ("lsq", "8w8a"), ("lsq", "4w4a"), ("tr", "2w2a"),
     ("coquant", "4w4a"), ("interval-binary", "1w1a")],
)  # fmt: skip
def test_the_graph_computes_what_the_network_simulates(policy, precision):
    net, images, exported = exported_block(policy, precision)
    onnx.checker.check_model(onnx.load_from_string(exported.model), full_check=True)
    assert same(exported.model, net, images).mean() >= 0.75
    kept = {i.name for i in onnx.load_from_string(exported.model).graph.initializer}
    assert not any("running" in name for name in kept)


def test_codes_are_the_quantizers_and_the_norm_is_in_the_scale():
    net, _, exported = exported_block("ssql", "4w4a", last="fp")
    graph = onnx.load_from_string(exported.model).graph
    tensors = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    codes = net.conv.w_quant.codes(net.conv.weight).numpy()
    gain = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    assert (gain < 0).any()
    step = net.conv.w_quant.grid(net.conv.weight)[0].flatten()
    # Codes of few bits are stored as multiples of what the quantizer gives.
    factor = np.abs(tensors["conv.codes"]).max((1, 2, 3)) / np.abs(codes).max((1, 2, 3))
    np.testing.assert_array_equal(tensors["conv.codes"], codes * factor.reshape(-1, 1, 1, 1))
    scale = next(node.input[1] for node in graph.node if "conv.codes" in node.input)
    np.testing.assert_allclose(tensors[scale] * factor, (step * gain).detach().numpy(), rtol=1e-6)
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]
    clips = [node for node in graph.node if node.op_type == "Clip"]
    limits = {int(tensors[name]) for node in clips for name in node.input[1:]}
    assert limits == {0, 15}  # of the integers: 8-bit activations of the stem need no clip


def test_a_layer_called_twice_stores_its_codes_once():
    _, _, exported = exported_block("lsq", "8w8a")
    assert exported.layers == ["conv", "shared", "shared", "fc"]
    assert code_bytes(exported.model) == 8 * 4 * 9 + 64 + 40


def test_packed_weights_take_half_and_compute_the_same():
    _, images, exported = exported_block("lsq", "4w4a")
    loose, packed = exported.model, exported.packed
    assert 2 * code_bytes(packed) == code_bytes(loose)
    np.testing.assert_array_equal(computed(loose, images)[0], computed(packed, images)[0])


def test_what_has_nothing_to_pack_is_one_model():
    _, _, exported = exported_block("lsq", "8w8a")
    assert exported.packed is exported.model


def test_any_number_of_images():
    _, images, exported = exported_block("ssql", "4w4a", last="fp")
    model = exported.model
    np.testing.assert_array_equal(computed(model, images[:1])[0], computed(model, images)[0][:1])


def test_the_network_is_left_as_it_was_and_the_exporters_own_progress_is_not_logged(caplog):
    net, images = quantized(Block(), "ssql", "4w4a")
    with torch.no_grad():
        before = net(images)
    net.train()
    with caplog.at_level("INFO"):
        export_network(net, images)
    talkers = ("torch.onnx", "onnx_ir", "onnxscript")
    assert [r for r in caplog.records if r.name.startswith(talkers)] == []
    assert all(module.training for module in net.modules())
    with torch.no_grad():
        assert torch.equal(net.eval()(images), before)


def test_a_trace_is_exported_at_every_precision_with_the_same_quantizers_on():
    net, images, exported = exported_block("lsq", "8w8a")
    trace = trace_network(net, images)
    assert trace.export(net) == exported
    net, _, exported = exported_block("lsq", "4w4a")
    assert trace.fits(net) and trace.export(net) == exported
    net, _, _ = exported_block("lsq", "FP")
    assert not trace.fits(net)
    with pytest.raises(ValueError, match=r"other quantizers are on .* nothing was exported"):
        trace.export(net)


def test_no_trace_fits_a_network_with_norms_of_every_precision():
    net, _ = quantized(Block(), "coquant", "8w8a")
    trace = Trace(onnx.ModelProto(), marked_names(net), (), ("logits",))
    assert trace.fits(net)
    assert not trace.fits(make_adaptive(net, (8, 4)))


def test_what_has_no_integers_is_refused_by_layer_before_a_trace(monkeypatch):
    net, images = quantized(Block(), {"base": "cq", "last": "target"}, "4w4a")
    monkeypatch.delattr(torch.onnx, "export")
    with pytest.raises(ExportError) as refusal:
        export_network(net, images)
    text = str(refusal.value)
    assert "3 quantizers" in text and "Nothing was written" in text
    for name in ("conv.a_quant", "shared.a_quant", "fc.a_quant"):
        assert f"\n  {name}: " in text


def shallow_transformer():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)


def shallow_mobilenet():
    """One block of each kind: shortcuts with and without a convolution, and none where it strides."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 1, 2))
    with patch.object(mobilenetv2_kuangliu, "_STAGES", stages):
        return create_backbone("mobilenetv2_kuangliu")


@pytest.mark.parametrize(
    "make",
    [partial(create_backbone, "resnet8"), shallow_mobilenet, shallow_transformer,
     *(pytest.param(partial(create_backbone, name), marks=pytest.mark.slow)
       for name in ("resnet20", "mobilenetv2_kuangliu"))],
)  # fmt: skip
def test_networks(make):
    net, images = quantized(make(), "lsq", "8w8a", 32)
    exported = export_network(net, images[:2], outputs=["features"])
    wanted = [n for n, m in net.named_modules() if getattr(m, "w_quant", None) is not None]
    assert sorted(exported.layers) == sorted(wanted)
    with torch.no_grad():
        expected = net(images[:2]).numpy()
    found = computed(exported.model, images[:2])[0]
    assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.99


class Extra(nn.Module):
    """What RetinaNet puts above its pyramid: a convolution's output is returned, and quantized too."""

    def __init__(self):
        super().__init__()
        self.p6, self.p7 = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1, bias=False)
        nn.init.zeros_(self.p6.bias)

    def forward(self, x):
        p6 = self.p6(x)
        return p6, self.p7(p6.relu()), p6 + 1


@pytest.fixture(scope="module")
def exported_extra():
    net, images = quantized(Extra(), {"base": "lsq", "first": "target"}, "4w4a")
    make_exact(net)
    outputs = ("first", "second", "third")
    return net, export_network(net, images, outputs=outputs, size_multiple=4)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_output_that_is_also_quantized(exported_extra, runtime):
    pytest.importorskip(runtime)
    net, exported = exported_extra
    session = get_runtime(runtime).load(exported.model, threads=1)
    if runtime == "openvino":  # which gives a layer the name of the model's output
        assert on_integers(session, exported.layers) == (["p6", "p7"], [])
    for size in ((12, 12), (20, 8)):
        x = exact_images(3, 3, *size)
        with torch.no_grad():
            expected = net(x)
        for y, simulated in zip(session.run(x.numpy()), expected, strict=True):
            np.testing.assert_allclose(y, simulated.numpy(), rtol=1e-6, atol=1e-6)
