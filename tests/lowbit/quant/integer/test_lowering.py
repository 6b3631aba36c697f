"""Rewritten graphs: what they hold, and networks whose numbers are exact in float32 either way."""

import pytest
import torch
from torch import nn

from lowbit.quant import all_quantizers, calibrate, quantize, quantized_layers, set_precision
from lowbit.quant.integer.code_kernels import is_available
from lowbit.quant.integer.graph_run import GraphRun
from lowbit.quant.integer.lowering import Add, Decode, Encode, NotLoweredError, Plain, lower
from lowbit.quant.integer.products import Product, is_exact

pytestmark = pytest.mark.skipif(
    not (is_available() and is_exact()), reason="this machine has no exact products of codes"
)


class Block(nn.Module):
    """A residual block, with a convolution in its shortcut where the size changes."""

    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.act2(y)


class Residual(nn.Module):
    """A stem with a max-pool, an identity shortcut, a strided block and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn, self.act, self.pool = nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 12, stride=2))
        self.head = nn.Linear(12, 6)

    def forward(self, x):
        x = self.blocks(self.pool(self.act(self.bn(self.conv(x)))))
        return self.head(x.mean((2, 3)))


def quantized(network, policy, precision="4w4a"):
    torch.manual_seed(2)
    quantize(network, policy, precision)
    calibrate(network, [torch.randn(8, 3, 16, 16)])
    return network.eval().requires_grad_(False)


def exact(policy):
    """Return a quantized network and images with which no operation in float32 rounds.

    Steps of grids are powers of two; weights are whole multiples of theirs. Normalizations shift by odd
    multiples of 1/256 and so keep sums of multiples of 1/64 off the ties of the grids.
    """
    network = quantized(Residual(), policy)
    generator = torch.Generator().manual_seed(3)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 0.0
        norm.running_mean.zero_()
        norm.weight.fill_(0.5)
        norm.bias.copy_(torch.randint(-20, 20, norm.bias.shape, generator=generator) / 64 + 1 / 256)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            whole = torch.randint(-7, 8, layer.weight.shape, generator=generator)
            layer.weight.copy_(whole / 16)
            # The largest magnitude is 7.5 steps of 1/16 in MinMax's symmetric weights of 4 bits.
            layer.weight.flatten(1)[:, 0] = 7.5 / 16
    for quantizer in all_quantizers(network):
        if hasattr(quantizer, "q_min"):
            quantizer.q_min.zero_()
            quantizer.q_max.fill_(15 / 4)
        elif hasattr(quantizer, "q_scale"):
            quantizer.q_scale.fill_(1 / 16 if quantizer.role == "weight" else 1 / 4)
    images = torch.randint(-8, 9, (5, 3, 16, 16), generator=generator) / 4
    return network, images


def run(network, graph, x):
    return GraphRun(network, graph, {})(x, set(), {})


POLICIES = {
    "ssql": {"base": "ssql", "first": {"weight": 4, "activation": 4}},
    "lsq": "lsq",
}


@pytest.mark.parametrize("name", POLICIES)
def test_where_nothing_rounds_integers_give_the_simulation_bit_for_bit(name):
    network, x = exact(POLICIES[name])
    with torch.no_grad():
        expected = network(x)
        graph = lower(network)
        assert run(network, graph, x).equal(expected)
    assert len(expected.unique()) > 10


def operations(graph, kind):
    return [node.target for node in graph.nodes if isinstance(node.target, kind)]


def test_a_network_that_quantizes_outputs_exchanges_codes_alone():
    network, _ = exact(POLICIES["ssql"])
    graph = lower(network)
    products = operations(graph, Product)
    assert len(products) == 5  # all but the stem, whose image has no codes, and the head
    assert [p.output is not None for p in products] == [True, False, True, False, False]
    assert [a.output is not None for a in operations(graph, Add)] == [True, True]
    assert len(operations(graph, Encode)) == 1  # behind the pooling
    assert len(operations(graph, Decode)) == 1  # for the mean
    (relu,) = operations(graph, Plain)
    assert relu.module is network.act
    names = [node.target for node in graph.nodes if node.op == "call_module"]
    assert names == ["conv", "bn", "pool", "head"]


def test_layers_that_read_one_tensor_on_one_grid_share_its_codes():
    network, _ = exact("lsq")
    ends = [node for node in lower(network).nodes if isinstance(node.target, Add)]
    assert [node.target.output is not None for node in ends] == [True, False]
    assert len(ends[0].users) == 2  # the second block's first convolution and its shortcut's
    network.blocks[1].shortcut[0].a_quant.q_scale.fill_(1 / 2)
    graph = lower(network)
    end, _ = (node for node in graph.nodes if isinstance(node.target, Add))
    assert end.target.output is None
    assert [user.target.grid.scale for user in end.users] == [1 / 4, 1 / 2]


def test_each_precision_has_its_own_codes():
    network = quantized(Residual(), "ssql", "8w8a")
    bits = []
    for precision in ("8w8a", "4w4a"):
        set_precision(network, precision)
        product = operations(lower(network), Product)[0]
        bits.append((int(product.codes.int().abs().max()), product.output.high))
    assert bits == [(128, 255), (8, 15)]


def test_fallbacks_stay_on_floats():
    """Unclamped grids, weights of more than 8 bits, an activation on no grid."""
    with pytest.raises(NotLoweredError, match="no layer computes on integers"):
        lower(quantized(Residual(), "cq"))
    with pytest.raises(NotLoweredError, match="no layer computes on integers"):
        lower(quantized(Residual(), "lsq", "9w9a"))
    network = quantized(Residual(), {"base": "lsq", "rules": [["blocks.0.*", "fp"]]})
    graph = lower(network)
    names = {node.target for node in graph.nodes if node.op == "call_module"}
    assert {"blocks.0.conv1", "blocks.0.bn2"} <= names
    assert len(operations(graph, Product)) == 3  # the second block's
    x = torch.randn(3, 3, 16, 16)
    for node in graph.nodes:
        if isinstance(node.target, Product):
            assert node.target.facts[1] in quantized_layers(network).values()
    with torch.no_grad():
        assert run(network, graph, x).shape == network(x).shape


class Odd(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.conv, self.second = way, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x, scale=None):
        y = self.conv(x)
        if self.way == "branch" and y.sum() > 0:
            return y
        if self.way == "pair":
            return y, self.second(y)
        if self.way == "reread":
            return self.second(self.act(y)) + y  # act has overwritten y
        if scale is not None:
            y = y * scale
        return self.second(y)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("branch", "TraceError"),
        ("reread", "writes over a tensor"),
        ("pair", "more than one tensor"),
    ],
)
def test_what_a_graph_does_not_hold_is_refused(way, reason):
    with pytest.raises(NotLoweredError, match=reason):
        lower(quantized(Odd(way), {"base": "lsq", "first": 8}))


def test_other_arguments_keep_their_defaults():
    network, x = quantized(Odd("default"), {"base": "lsq", "first": 8}), torch.randn(2, 3, 8, 8)
    graph = lower(network)
    assert [n.name for n in graph.nodes if n.op == "placeholder"] == ["x"]
    product, codes = operations(graph, Product)[0], operations(graph, Encode)[0](x)
    product.output = None
    with torch.no_grad():
        expected = network.conv(x)
        assert torch.allclose(product(codes), expected, atol=1e-5)
