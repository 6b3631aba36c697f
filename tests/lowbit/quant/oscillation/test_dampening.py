"""Oscillation dampening against its loss, differentiated by autograd in float64."""

import math

import pytest
import torch

from lowbit.quant import quantized_layers
from lowbit.quant.oscillation.annealing import Annealing
from lowbit.quant.oscillation.attach import attach, controlled_layers
from lowbit.quant.oscillation.dampening import Dampening
from lowbit.training.optimizers import clip_gradients
from tests.lowbit.quant.oscillation.oscillating_layer import (
    STEPS,
    make_layer,
    make_sgd,
    normalized,
    train,
)

FINAL, START = 0.4, 0.1


def _dampening(net, optimizer, reduce="kernel-mean"):
    weight = Annealing(0.0, FINAL, STEPS, start=START)
    control = Dampening(controlled_layers(net), weight, reduce=reduce)
    attach(optimizer, control)
    return control


def _reference(w, s, batches, *, lsq, reduce, mu=0.9, bits=3):
    """Loss plus λ ‖sg(ŵ) - clip(w, s n, s p)‖², by autograd; SGD by hand."""
    low, high, gamma = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 1 if lsq else 2 ** (bits - 1)
    g = 1 / math.sqrt(w.numel() / s.numel() * high) if lsq else 1
    w, s, v = w.clone().requires_grad_(), s.clone().requires_grad_(), [0, 0]
    for t, (x, y) in enumerate(batches):
        step = s / gamma
        r = (w / step).clamp(low, high)
        c = r + (r.round() - r).detach()
        task = (normalized(x @ (c * s if lsq else c / gamma).T) - y).square().mean()
        limits = (low * step).detach(), (high * step).detach()
        off = (r.round() * step).detach() - torch.minimum(torch.maximum(w, limits[0]), limits[1])
        extra = off.square().sum() if reduce == "sum" else off.square().sum(0).mean()
        rise = max(t - START * STEPS, 0) / (STEPS - START * STEPS)
        grads = torch.autograd.grad(task, (w, s))
        own = torch.autograd.grad(FINAL * (1 - math.cos(math.pi * rise)) / 2 * extra, w)[0]
        for i, (p, d, lr) in enumerate(((w, grads[0] + own, 0.3), (s, g * grads[1], 0.03))):
            v[i] = mu * v[i] + d
            p.data -= lr * v[i]
    return w.detach(), s.detach(), extra.item()


@pytest.mark.parametrize("reduce", ["kernel-mean", "sum"])
@pytest.mark.parametrize("policy", ["lsq", "interval"])
def test_it_is_the_gradient_of_the_papers_loss(policy, reduce):
    net, batches = make_layer(policy)
    layer = quantized_layers(net)["0"]
    start = layer.weight.detach().clone(), layer.w_quant.q_scale.detach().clone()
    w, s, _ = _reference(*start, batches, lsq=policy == "lsq", reduce=reduce)
    optimizer = make_sgd(net)
    control = _dampening(net, optimizer, reduce)
    train(net, optimizer, batches)
    torch.testing.assert_close(layer.weight.detach(), w)
    torch.testing.assert_close(layer.w_quant.q_scale.detach(), s)
    report = control.report()
    assert report["names"] == ["0"] and report["weight"] == pytest.approx(FINAL, rel=1e-3)


def test_alone_it_brings_weights_to_the_middle_of_their_intervals():
    """Each step shrinks the distance by the factor 1 - 2 λ lr; clipped weights do not move."""
    net, _ = make_layer("lsq")
    layer = net[0]
    optimizer = torch.optim.SGD([layer.weight], lr=0.1)
    weight = Annealing(0.0, FINAL, STEPS, "constant")
    attach(optimizer, Dampening(controlled_layers(net), weight, reduce="sum"))
    with torch.no_grad():
        layer.weight[0] *= 100
    step, (low, high) = layer.w_quant.scale.detach(), layer.w_quant.levels()
    start = layer.weight.detach() / step
    inside = (start > low) & (start < high)
    for _ in range(7):
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
    off = (start - start.round()) * (1 - 2 * FINAL * 0.1) ** 7
    expected = torch.where(inside, start.round() + off, start)
    assert inside.any() and not inside.all()
    torch.testing.assert_close(layer.weight.detach() / step, expected)


def test_its_gradient_is_clipped_with_the_others():
    net, batches = make_layer("lsq")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    control = Dampening(controlled_layers(net), Annealing(0.0, 1e6, 1, "constant"))
    attach(optimizer, control)
    clip_gradients(optimizer, "full_model", 0.25)
    before = net[0].weight.detach().clone()
    train(net, optimizer, batches[:1])
    assert (net[0].weight.detach() - before).norm().item() <= 0.25 + 1e-9


def test_the_schedule_goes_on_after_a_stop():
    net, batches = make_layer("lsq")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    _dampening(net, optimizer)
    train(net, optimizer, batches[:50])
    saved = optimizer.state_dict()
    other = torch.optim.SGD(net.parameters(), lr=0.1)
    control = _dampening(net, other)
    other.load_state_dict(saved)
    train(net, other, batches[50:51])
    rise = (50 - START * STEPS) / (STEPS - START * STEPS)
    expected = FINAL * (1 - math.cos(math.pi * rise)) / 2
    assert control.report()["weight"] == pytest.approx(expected)


def test_an_unknown_sum_is_refused():
    net, _ = make_layer("lsq")
    with pytest.raises(ValueError, match="cannot be reduced by 'mean'; nothing was trained"):
        Dampening(controlled_layers(net), Annealing(0.0, 0.1, 10), reduce="mean")
