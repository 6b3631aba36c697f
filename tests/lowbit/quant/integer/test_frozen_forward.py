"""Passes of a frozen network at several precisions."""

import pytest
import torch
from torch import nn

from lowbit.quant import (
    FP,
    Precision,
    calibrate,
    quantize,
    quantized_layers,
    reuse_weights,
    set_precision,
    use_fused_kernels,
)
from lowbit.quant.float64 import in_float64
from lowbit.quant.integer import lowering
from lowbit.quant.integer.frozen_forward import FrozenForward, computes_on_integers

PRECISIONS = [FP, *map(Precision.parse, ("8w8a", "4w4a", "3w3a"))]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for out in (8, 12, 16):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x).mean((2, 3))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = quantize(Net(), "ssql")
    calibrate(net, [torch.randn(16, 3, 8, 8)])
    return net.eval()


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8)


@pytest.fixture
def eager():
    yield use_fused_kernels
    use_fused_kernels(None)


@torch.no_grad()
def simulated(net, x):
    found = []
    for precision in PRECISIONS:
        set_precision(net, precision)
        with reuse_weights(net):
            found.append(net(x))
    return found


def passes(forward, x, precisions=PRECISIONS):
    with forward.at(precisions) as run:
        return run(x)


def same(found, expected):
    return [a.equal(b) for a, b in zip(found, expected, strict=True)]


integers = pytest.mark.skipif(
    not computes_on_integers(nn.Linear(1, 1)), reason="this machine has no exact products of codes"
)


@integers
def test_full_precision_is_the_network_itself_and_low_bits_are_not(net, x):
    found = passes(FrozenForward(net), x)
    assert same(found, simulated(net, x)) == [True, False, False, False]
    assert not any(t.requires_grad for t in found)


@integers
def test_weights_become_codes_once_for_all_batches_and_passes(net, x, monkeypatch):
    calls = []
    original = lowering.weight_codes
    monkeypatch.setattr(lowering, "weight_codes", lambda layer: calls.append(1) or original(layer))
    forward = FrozenForward(net)
    with forward.at(PRECISIONS) as run:
        first = run(x), run(x)
    again = passes(forward, x), passes(forward, x, PRECISIONS[2:])
    assert len(calls) == 3 * 2  # precisions, layers that read codes
    for found in (first[1], again[0]):
        assert all(same(found, first[0]))
    assert all(same(again[1], first[0][2:]))


@integers
def test_the_stem_of_fixed_bits_runs_once_for_all_low_precisions(net, x, monkeypatch):
    calls, original = [], type(net.body[0])._conv_forward
    counted = type(net.body[0])

    def count(self, *arguments):
        if self is net.body[0]:
            calls.append(self.w_quant.bits)
        return original(self, *arguments)

    monkeypatch.setattr(counted, "_conv_forward", count)
    passes(FrozenForward(net), x)
    assert calls == [32, 8]


@pytest.mark.parametrize("way", ["kernels off", "float64", "hook", "instance's forward"])
def test_elsewhere_the_network_runs_as_it_is(net, x, eager, way):
    if way == "kernels off":
        eager(False)
    elif way == "hook":
        net.body[4].register_forward_hook(lambda *_: None)
    elif way == "instance's forward":
        net.body[4].forward = type(net.body[4]).forward.__get__(net.body[4])
    if way == "float64":
        with in_float64([net]):
            assert not computes_on_integers(net)
            assert all(same(passes(FrozenForward(net), x), simulated(net, x)))
    else:
        assert all(same(passes(FrozenForward(net), x), simulated(net, x)))


def test_a_network_whose_forward_cannot_be_traced_runs_as_it_is(x):
    class Branching(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > -1e9 else -x)

    torch.manual_seed(0)
    net = quantize(Branching(), "ssql")
    calibrate(net, [torch.randn(16, 3, 8, 8)])
    net.eval()
    assert all(same(passes(FrozenForward(net), x), simulated(net, x)))


def test_hooks_of_the_network_itself_see_whole_batches(net, x):
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    passes(FrozenForward(net), x)
    assert seen == [5] * 4


def test_a_network_in_train_mode_is_refused(net):
    with pytest.raises(AssertionError, match="eval mode"), FrozenForward(net.train()).at([FP]):
        pass


def test_a_layer_that_is_passed_by_is_refused_each_time(x):
    class Bypassing(Net):
        def __init__(self):
            super().__init__()
            self.spare, self.bypasses = nn.Linear(16, 16, bias=False), False

        def forward(self, x):
            x = super().forward(x)
            return x @ self.spare.weight.T if self.bypasses else self.spare(x)

    torch.manual_seed(0)
    net = quantize(Bypassing(), "ssql")
    calibrate(net, [torch.randn(16, 3, 8, 8)])
    net.bypasses = True
    forward = FrozenForward(net.eval())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"passed by \(spare\)"):
            passes(forward, x, [Precision(4, 4)])
    assert len(passes(forward, x, [FP])[0]) == 5


def test_each_layer_has_the_integers_of_its_own_bits(net, x):
    forward = FrozenForward(net)
    passes(forward, x)
    assert {layer.w_quant.bits for layer in quantized_layers(net).values()} == {8, 3}


def mixed(network, policy, precisions=("4w4a", "3w3a")):
    """Return a network's features at several precisions, computed together and each alone."""
    torch.manual_seed(1)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
    quantize(network, policy)
    calibrate(network, [torch.randn(16, 3, 8, 8)])
    x, precisions = torch.randn(5, 3, 8, 8), [*map(Precision.parse, precisions)]
    network.eval()
    together = passes(FrozenForward(network), x, precisions)
    return together, [passes(FrozenForward(network), x, [precision])[0] for precision in precisions]


class Preactivated(Net):
    """Whose blocks return sums as they are, so that a block as a whole may have a grid."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.conv = nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False)
            self.bn = nn.BatchNorm2d(16)

        def forward(self, x):
            return x + self.bn(self.conv(self.act(x)))

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(self.Block(), self.Block(), nn.Conv2d(16, 8, 1)),
        )


class TwoNorms(nn.Module):
    """Whose first layer is read through two norms, on a grid and as it is."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.layer = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        found = [norm(self.stem(x)) for norm in self.norms]
        return torch.cat([y + self.layer(y) for y in found], 1).mean((2, 3))


@pytest.mark.parametrize("policy", ["ssql-int8", "lsq-int8"])
def test_blocks_with_a_grid_of_their_own_are_not_shared(policy):
    together, alone = mixed(Preactivated(), policy)
    assert all(same(together, alone)) and not together[0].equal(together[1])


def test_a_layer_before_two_norms_is_not_one_result():
    together, alone = mixed(TwoNorms(), {"base": "lsq", "first": 8})
    assert all(same(together, alone))


def test_weights_of_other_bits_are_other_work_though_their_codes_fit_as_many():
    class Even(Net):
        def __init__(self):
            super().__init__()
            self.body[3].weight.data.uniform_(-1, 1)  # codes up to 6 and 4: 4 bits
            self.body[6].weight.data[0, 0] = 10  # codes of 6 and 5 bits

    together, alone = mixed(Even(), "lsq", ("6w4a", "5w4a"))
    assert all(same(together, alone)) and not together[0].equal(together[1])


def test_batches_that_codes_do_not_hold_run_as_they_are(net, x):
    precisions = PRECISIONS[1:]
    forward = FrozenForward(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(same(passes(forward, x, precisions), simulated(net, x)[1:]))
    broken = x.clone()
    broken[2, 0, 0, 0] = torch.nan
    for found in passes(forward, broken, precisions):
        assert found.isnan().any(1).tolist() == [False, False, True, False, False]
    assert [found.shape for found in passes(forward, x[:0], precisions)] == [(0, 16)] * 3


def test_quantized_weights_are_held_at_one_precision_at_a_time(x):
    torch.manual_seed(0)
    net = quantize(Net(), "cq")  # which has no codes
    calibrate(net, [torch.randn(16, 3, 8, 8)])
    layers = quantized_layers(net.eval()).values()
    with FrozenForward(net).at(PRECISIONS) as run:
        found = run(x)
        assert not any(layer._reused for layer in layers)
    assert all(same(found, simulated(net, x)))
    with FrozenForward(net).at(PRECISIONS[2:3]) as run:
        run(x)
        assert all(len(layer._reused) == 1 for layer in layers)
