"""Graphs in runtimes with all their optimizations, against ONNX Runtime without any."""

import itertools
import tempfile
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant import calibrate, quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from lowbit.export import integer_graph, runtime_rewrites  # noqa: E402
from lowbit.export.onnx_export import export_network, trace_network  # noqa: E402
from lowbit.export.runtime import CODES, get_runtime, on_integers  # noqa: E402
from lowbit.quant.integer.integer_grid import weight_codes  # noqa: E402
from tests.exact_networks import exact_images, make_exact  # noqa: E402
from tests.onnx_operators import operators_read_once  # noqa: E402, F401

POLICIES = ["ssql", "lsq", "ssql-int8", "lsq-int8"]
# Every policy and every precision by default; the other pairs repeat them.
OFTEN = {("ssql", "3w3a"), ("lsq", "8w8a"), ("ssql-int8", "4w4a"), ("lsq-int8", "3w3a")}
CELLS = [
    pytest.param(*cell, marks=[] if cell in OFTEN else pytest.mark.slow)
    for cell in itertools.product(POLICIES, ("8w8a", "4w4a", "3w3a"))
]


@cache
def traced_resnet(policy):
    """The trace of all that `resnet` makes of a policy."""
    net, images = resnet(policy, "4w4a")
    return trace_network(net, images[:2], outputs=["features"])


def exported_resnet(net, policy):
    return traced_resnet(policy).export(net)


def resnet(policy, precision, seed=0):
    """A ResNet whose normalizations have factors and shifts, as after training; and images.

    Activations of eight bits use codes to 127 alone, so that no CPU clips a sum of two products.
    """
    torch.manual_seed(seed)
    net, images = create_backbone("resnet10_slim"), torch.rand(16, 3, 32, 32)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.4, 1.2)
            norm.bias.data.uniform_(-0.5, 0.5)
    quantize(net.eval(), policy, precision)
    calibrate(net, [images])
    for module in net.modules():
        quantizer = getattr(module, "a_quant", None)
        if quantizer is not None and quantizer.bits == 8:
            for name in ("q_scale", "q_min", "q_max"):
                if hasattr(quantizer, name):
                    getattr(quantizer, name).data.mul_(2)
    return net, images


def plain(model, images):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


def initializers(model):
    graph = onnx.load_from_string(model).graph
    return {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}


def deviation(found, expected):
    """Mean deviation of features, in the standard deviation of all."""
    return np.abs(found - expected).mean() / expected.std()


@pytest.mark.parametrize(("policy", "precision"), CELLS)
def test_openvino_rounds_where_the_network_does(policy, precision):
    pytest.importorskip("openvino")
    net, images = resnet(policy, precision)
    exported = exported_resnet(net, policy)
    session = get_runtime("openvino").load(exported.model, threads=1)
    expected = plain(exported.model, images)
    # A code that lies between two in float32 may fall either way, and changes what follows it.
    assert deviation(session.run(images.numpy())[0], expected) < 0.01
    assert len(on_integers(session, exported.layers)[0]) >= 11


@pytest.mark.parametrize(
    "policy",
    ["ssql", "lsq-int8", *(pytest.param(p, marks=pytest.mark.slow) for p in ("lsq", "ssql-int8"))],
)
def test_onnxruntime_keeps_biases_and_integer_layers(policy, monkeypatch):
    net, images = resnet(policy, "4w4a")
    adapted = exported_resnet(net, policy)
    monkeypatch.setattr(integer_graph, "adapt_to_runtimes", lambda graph: None)
    bare = exported_resnet(net, policy)
    expected, integers, error = plain(bare.model, images), [], []
    for exported in (bare, adapted):
        session = get_runtime("onnxruntime").load(exported.model, threads=1)
        integers.append(on_integers(session, exported.layers)[0])
        error.append(deviation(session.run(images.numpy())[0], expected))
    assert integers[0] == integers[1]
    assert error[1] < error[0] * 0.8
    assert deviation(plain(adapted.model, images), expected) < 0.01  # and no value changed


def test_weights_grow_no_further_than_16_bits_hold_two_products():
    net, _ = resnet("ssql-int8", "4w4a")
    tensors = initializers(exported_resnet(net, "ssql-int8").model)
    largest = {}
    for name, layer in net.named_modules():
        if getattr(layer, "w_quant", None) is None:
            continue
        codes = tensors[f"{name}.codes"].astype(np.int64)
        original = weight_codes(layer).codes.numpy().astype(np.int64)
        factors = np.abs(codes).reshape(len(codes), -1).max(1) / np.abs(original).reshape(
            len(codes), -1
        ).max(1)
        np.testing.assert_array_equal(codes, original * factors.reshape(-1, 1, 1, 1))
        largest[name] = np.abs(codes).max()
    assert largest["layer1.0.conv1"] <= 64  # its input has 255 as its largest code
    assert 64 < largest["layer1.0.conv2"] <= 127  # and this 15


def test_codes_behind_signed_inputs_are_even():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1))
    quantize(net.eval(), {"base": "lsq", "first": "target", "last": "target"}, "4w4a")
    images = torch.randn(4, 3, 12, 12)
    calibrate(net, [images])
    make_exact(net)
    exported = export_network(net, images)
    codes = [t for name, t in initializers(exported.model).items() if name.endswith(CODES)]
    assert [t.dtype for t in codes] == [np.int8] * 3
    assert all((t % 2 == 0).all() and 1 < np.abs(t).max() <= 64 for t in codes)
    x = exact_images(4, 3, 12, 12)
    with torch.no_grad():
        expected = net(x).numpy()
    for runtime in ("openvino", "onnxruntime"):
        pytest.importorskip(runtime)
        found = get_runtime(runtime).load(exported.model, threads=1).run(x.numpy())[0]
        np.testing.assert_array_equal(found, expected)


class Pooled(nn.Module):
    """A stem with a pooling, whose output a convolution and a shortcut read, as in ResNets."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.pool(self.act1(self.bn1(self.conv1(x))))
        return self.act2(self.bn2(self.conv2(x)) + x).mean((2, 3))


@pytest.mark.parametrize("policy", POLICIES)
def test_onnxruntime_pools_integers_and_no_value_changes(policy, monkeypatch):
    torch.manual_seed(0)
    net, images = Pooled().eval(), torch.randn(8, 3, 16, 16)
    quantize(net, policy, "8w8a")
    calibrate(net, [images])
    trace = trace_network(net, images[:2], outputs=["features"])
    adapted = trace.export(net).model
    monkeypatch.setattr(runtime_rewrites, "_pool_codes", lambda graph, node: None)
    bare = trace.export(net).model
    np.testing.assert_array_equal(plain(adapted, images), plain(bare, images))
    sessions = [get_runtime("onnxruntime").load(m, threads=1) for m in (adapted, bare)]
    integers = [[layer.names for layer in s.layers() if layer.integer] for s in sessions]
    assert integers[0] == integers[1]
    pools = [_pool(model) for model in (adapted, bare)]
    if policy.endswith("-int8"):  # the others pool what their first layer gives in full precision
        assert pools[0] == "NhwcMaxPool"
    if policy == "lsq-int8":
        assert pools[1] == "MaxPool"  # else the rewrite is no longer needed


def _pool(model):
    """The operator that ONNX Runtime pools with."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/optimized.onnx"
        options.optimized_model_filepath = path
        ort.InferenceSession(model, options, ["CPUExecutionProvider"])
        (operator,) = (n.op_type for n in onnx.load(path).graph.node if "MaxPool" in n.op_type)
    return operator


class Joined(nn.Module):
    """Two convolutions whose outputs are joined and then quantized, and two layers behind them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.left, self.right = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.behind, self.last = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        parts = [nn.functional.leaky_relu(part(x), 0.125) for part in (self.left, self.right)]
        return self.last(nn.functional.leaky_relu(self.behind(torch.cat(parts, 1)), 0.125))


@pytest.fixture(scope="module")
def joined():
    """Return the network, images and its export."""
    net, images = Joined().eval(), exact_images(4, 3, 32, 32)
    quantize(net, {"base": "lsq", "first": "fp", "last": 8}, "8w8a")
    calibrate(net, [images])
    make_exact(net)
    return net, images, export_network(net, images[:2], outputs=["features"], size_multiple=16)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_what_is_joined_before_it_is_quantized_is_the_networks(joined, runtime):
    pytest.importorskip(runtime)
    net, images, exported = joined
    session = get_runtime(runtime).load(exported.model, threads=1)
    with torch.no_grad():
        expected = net(images).numpy()
    np.testing.assert_allclose(session.run(images.numpy())[0], expected, rtol=1e-5, atol=1e-5)
