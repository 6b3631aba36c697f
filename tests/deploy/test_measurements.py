"""The processor, saturation, memory and agreement, against what is known."""

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.deploy import saturation
from lowbit.deploy.agreement import compare
from lowbit.deploy.processor import read_cpuinfo, this_processor
from lowbit.export.runtime import get_runtime
from lowbit.quant import calibrate, quantize
from lowbit.quant.float64 import in_float64

XEON = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: avx2 avx512bw avx512_vnni amx_int8\n"
OLD = "model name\t: Core i7\nflags\t\t: sse4_2 avx avx2\n\nmodel name\t: other\n"
ARM = "processor : 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("text", "model", "instructions"),
    [
        (XEON, "Xeon", "AMX-INT8 AVX512-VNNI AVX512"),
        (OLD, "Core i7", "AVX2"),
        (ARM, None, "I8MM DotProd"),
    ],
)
def test_processors_are_read(text, model, instructions):
    found = read_cpuinfo(text)
    assert found[1] == instructions and (model is None or found[0] == model)
    assert this_processor().cores >= 1


class Products:
    """A runtime whose convolution adds two products at a time, clipped to 16 bits or not."""

    def __init__(self, most):
        self.most = most

    def load(self, model, *, threads):
        return self

    def run(self, x):
        pairs = np.minimum(2.0 * 127 * x[:, ::2], self.most)
        return [np.repeat(pairs.sum(1, keepdims=True), x.shape[1], axis=1)]


def test_saturating_products_are_found():
    pytest.importorskip("onnx")
    assert saturation._measured(Products(2**15 - 1)) == saturation.SATURATE
    assert saturation._measured(Products(2**31)) == saturation.EXACT


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_products_of_this_machine_are_measured(runtime):
    pytest.importorskip(runtime)
    assert saturation.products(runtime) in (saturation.EXACT, saturation.SATURATE)
    session = get_runtime(runtime).load(saturation._largest_products(), threads=1)
    assert [layer.integer for layer in session.layers()] == [True]  # else sums would say nothing


class Graph:
    def __init__(self, function):
        self.function = function

    def run(self, images):
        return [self.function(torch.from_numpy(images)).numpy()]


def test_agreement_counts_images_with_the_same_class():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).eval().requires_grad_(False)
    images = torch.randn(90, 3, 2, 2)
    other = torch.arange(90) % 3 == 0

    def wrong(x):
        logits = network(x)
        return torch.where(other[: len(x), None], logits.roll(1, dims=1), logits)

    graphs = {"same": Graph(network), "wrong": Graph(wrong)}
    found = compare(network, graphs, [images], classes=True)
    assert found.images == 90 and found.floor == 1
    assert found.graphs == {"same": 1, "wrong": pytest.approx(2 / 3)}
    assert found.passes("same") and not found.passes("wrong")
    found = compare(network, {"minus": Graph(lambda x: -network(x))}, [images], classes=False)
    assert found.graphs["minus"] == pytest.approx(-1) and found.floor == pytest.approx(1)


def test_the_noise_floor_has_the_weights_of_the_graph():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 64, 3, bias=False), nn.ReLU()
    )
    quantize(
        network, "ssql", "4w4a"
    )  # each channel's largest weight lies halfway between two codes
    calibrate(network, [torch.randn(8, 3, 8, 8)])
    network.eval().requires_grad_(False)
    layer, x = network[2], torch.randn(4, 3, 8, 8)
    codes, expected = layer.w_quant.codes(layer.weight), network(x)
    with in_float64([network]):
        assert torch.equal(layer.w_quant.codes(layer.weight), codes)
        moved = (network(x) - expected).abs() / network[3].a_quant.scale
    assert (moved > 0.5).double().mean() < 0.01
