"""Iterative weight freezing against Nagel et al.'s Algorithm 1, written out in float64."""

import math

import pytest
import torch

from lowbit.quant import quantize, quantized_layers
from lowbit.quant.oscillation.annealing import Annealing
from lowbit.quant.oscillation.attach import attach, controlled_layers
from lowbit.quant.oscillation.freezing import Freezing
from tests.lowbit.quant.oscillation.oscillating_layer import (
    STEPS,
    make_layer,
    make_sgd,
    normalized,
    train,
)

M, FIRST, LAST, START = 0.02, 0.12, 0.03, 0.25


def _freezing(net, optimizer, momentum=M):
    threshold = Annealing(FIRST, LAST, STEPS, start=START)
    control = Freezing(controlled_layers(net), threshold, momentum=momentum)
    attach(optimizer, control)
    return control


def _reference(w, s, batches, *, lsq, mu=0.9, bits=3):
    """Frozen codes replace the rounded ones in the forward pass, with no path to w; SGD by hand."""
    low, high, gamma = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 1 if lsq else 2 ** (bits - 1)
    g = 1 / math.sqrt(w.numel() / s.numel() * high) if lsq else 1
    w, s = w.clone().requires_grad_(), s.clone().requires_grad_()
    code = (w / (s / gamma)).clamp(low, high).round().detach()
    turn, f, mean, frozen = 0 * code, 0 * code, code.clone(), code != code
    v, held = [0, 0], code.clone()
    for t, (x, y) in enumerate(batches):
        r = (w / (s / gamma)).clamp(low, high)
        c = torch.where(frozen, held, r + (r.round() - r).detach())
        (normalized(x @ (c * s if lsq else c / gamma).T) - y).square().mean().backward()
        for i, (p, scale, lr) in enumerate(((w, 1, 0.3), (s, g, 0.03))):
            v[i] = mu * v[i] + scale * p.grad
            p.data -= lr * v[i]
            p.grad = None
        new = (w / (s / gamma)).clamp(low, high).round().detach()
        new = torch.where(frozen, held, new)
        moved = (new - code).sign()
        f = M * (moved * turn == -1) + (1 - M) * f
        turn = torch.where(moved != 0, moved, turn)
        if t >= START * STEPS:
            fall = (t - START * STEPS) / (STEPS - START * STEPS)
            limit = LAST + (FIRST - LAST) * (1 + math.cos(math.pi * fall)) / 2
            now = (f > limit) & ~frozen
            new = torch.where(now, mean.round(), new)
            held, frozen = torch.where(now, new, held), frozen | now
        mean, code = M * new + (1 - M) * mean, new
    return w.detach(), s.detach(), code, frozen, f


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("policy", ["lsq", "interval"])
def test_it_is_algorithm_1(policy, granularity):
    net, batches = make_layer(policy, granularity=granularity)
    layer = quantized_layers(net)["0"]
    start = layer.weight.detach().clone(), layer.w_quant.q_scale.detach().clone()
    w, s, code, frozen, f = _reference(*start, batches, lsq=policy == "lsq")
    optimizer = make_sgd(net)
    control = _freezing(net, optimizer)
    train(net, optimizer, batches)
    assert 3 <= frozen.sum() < frozen.numel()  # some oscillate often enough, others do not
    torch.testing.assert_close(layer.w_quant.q_scale.detach(), s)
    assert torch.equal(layer.w_quant.codes(layer.weight).double(), code)
    codes = control.frequency.codes
    assert torch.equal(codes.pieces(control.frozen)[0], frozen)
    found = codes.pieces(control.frequency.value)[0].double()
    torch.testing.assert_close(found, f, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.weight.detach()[~frozen], w[~frozen])
    report = control.report()
    assert report["names"] == ["0"] and report["threshold"] == pytest.approx(LAST, rel=1e-2)
    assert report["frozen"] == [pytest.approx(frozen.double().mean().item())]


def test_a_frozen_weight_follows_its_step_and_nothing_else():
    net, batches = make_layer("lsq")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-2)
    control = _freezing(net, optimizer)
    train(net, optimizer, batches[:150])
    layer = net[0]
    (frozen,) = control.frequency.codes.pieces(control.frozen.clone())
    codes, step = layer.w_quant.codes(layer.weight), layer.w_quant.scale.item()
    assert frozen.any()
    train(net, optimizer, batches[150:])
    assert layer.w_quant.scale.item() != step
    assert torch.equal(layer.w_quant.codes(layer.weight)[frozen], codes[frozen])
    middle = codes[frozen].double() * layer.w_quant.scale
    torch.testing.assert_close(layer.weight.detach()[frozen], middle.detach())


def test_a_stopped_training_goes_on_with_the_same_bits():
    finals = []
    for stops in ((), (90,)):
        net, batches = make_layer("interval")
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        control = _freezing(net, optimizer)
        done = 0
        for stop in (*stops, len(batches)):
            train(net, optimizer, batches[done:stop])
            done = stop
            if stop < len(batches):
                saved = net.state_dict(), optimizer.state_dict()
                net, _ = make_layer("interval")
                net.load_state_dict(saved[0])
                optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
                control = _freezing(net, optimizer)
                optimizer.load_state_dict(saved[1])
        finals.append((net[0].weight.detach(), control.frozen))
    assert finals[0][1].any()
    for one, other in zip(*finals, strict=True):
        assert torch.equal(one, other)


def test_a_state_without_frequencies_is_refused():
    net, _ = make_layer("lsq")
    plain = torch.optim.SGD(net.parameters(), lr=0.1)
    saved = plain.state_dict()
    _freezing(net, plain)
    with pytest.raises(ValueError, match="which weights oscillate; nothing was restored"):
        plain.load_state_dict(saved)


def test_nothing_is_frozen_before_the_threshold_starts_to_fall():
    net, batches = make_layer("lsq")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    control = _freezing(net, optimizer, momentum=0.5)  # whose first oscillation exceeds it
    train(net, optimizer, batches[: STEPS // 4])
    assert (control.frequency.value > FIRST).any() and not control.frozen.any()
    train(net, optimizer, batches[STEPS // 4 : STEPS // 4 + 1])
    assert control.frozen.any()


def test_a_step_does_not_wait_for_the_device(monkeypatch):
    net, batches = make_layer("lsq")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    _freezing(net, optimizer)
    train(net, optimizer, batches[:2])

    def refuse(*_):
        raise AssertionError("a step read a tensor on the host")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    x, y = batches[2]
    optimizer.zero_grad()
    (net(x) - y).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("policy", ["ewgs", "dorefa"])
def test_levels_that_are_computed_from_weights_are_refused(policy):
    net = quantize(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)), policy, "4w4a"
    )
    with pytest.raises(
        ValueError, match="middle of a weight's interval is unknown; nothing was tr"
    ):
        controlled_layers(net)


def test_layers_of_more_bits_are_left_alone():
    net, _ = make_layer("lsq", bits=3)
    assert list(controlled_layers(net, most_bits=3)) == ["0"]
    with pytest.raises(ValueError, match="no layer has weights of 2 bits or fewer"):
        controlled_layers(net, most_bits=2)
