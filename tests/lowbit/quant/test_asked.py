"""A listed quantizer that a forward pass goes by is an error."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.quant import (
    FP,
    calibrate,
    get_policy,
    quantize,
    quantized_layers,
    require_asked,
    set_precision,
)

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class PassesBy(nn.Module):
    """Multiplies by a weight in a way that no layer can take over."""

    def __init__(self):
        super().__init__()
        self.called, self.passed = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = F.relu(self.called(x))
        return x @ self.passed.weight.T if self.by else self.passed(x)

    by = True


def test_calibration_names_the_layers_passed_by():
    net = quantize(PassesBy(), "lsq")
    with pytest.raises(
        ValueError, match=r"^1 of 2 layers .* \(passed\): .* full precision.*nothing was scored"
    ):
        calibrate(net, [X])
    kept = quantize(PassesBy(), {"base": "lsq", "rules": {"passed": "fp"}})
    assert calibrate(kept, [X]) == 4


def test_a_weight_alone_is_asked_for_too():
    net = quantize(
        PassesBy(), {"base": "lsq", "rules": {"*": {"weight": "target", "activation": "fp"}}}
    )
    with pytest.raises(ValueError, match=r"\(passed\)"):
        calibrate(net, [X])
    net.by = False
    calibrate(net, [X])


def test_an_activation_that_is_not_run_is_named():
    net = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "act": nn.ReLU()})
    net.forward = lambda x: net["conv"](x).relu()
    policy = get_policy(
        {"base": "ssql", "rules": {"conv": {"weight": "target", "activation": "fp"}}}
    )
    with pytest.raises(ValueError, match=r"^1 of 2 layers .* \(act\)"):
        calibrate(quantize(net, policy), [torch.rand(2, 3, 4, 4)])


def test_only_quantizers_that_are_on_are_asked_for():
    net = quantize(PassesBy(), "lsq")
    net.by = False
    calibrate(net, [X])
    net.by = True
    with require_asked(net):
        net(X)  # in full precision
    set_precision(net, "4w4a")
    with pytest.raises(ValueError, match="passed by"), require_asked(net):
        net(X)
    set_precision(net, FP)
    with require_asked(net):
        net(X)


def test_nothing_is_left_behind_and_blocks_nest():
    net = quantize(PassesBy(), "lsq")
    net.by = False
    calibrate(net, [X])
    set_precision(net, "4w4a")
    expected = net(X)
    with require_asked(net):
        with require_asked(net):
            assert torch.equal(net(X), expected)
        layers = quantized_layers(net).values()
        assert not any("quantized_weight" in layer.__dict__ for layer in layers)
        assert not any("forward" in layer.a_quant.__dict__ for layer in layers)
    with pytest.raises(KeyError), require_asked(net):
        raise KeyError("own")
    with pytest.raises(ValueError, match=r"^2 of 2"), require_asked(net):
        pass
    assert torch.equal(net(X), expected)
    assert not any("forward" in layer.a_quant.__dict__ for layer in quantized_layers(net).values())
