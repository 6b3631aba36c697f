"""LARS against its formula, and the learning rate against the published schedules."""

import math

import pytest
import torch
from torch import nn

from pretrain.optimizers import LARS, create_optimizer, learning_rate

COSINE = {"lr": 0.5, "epochs": 10, "warmup_epochs": 0, "steps": 4}


def test_the_cosine_per_epoch_is_official_ssqls():
    for epoch in range(10):
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 10)) / 2
        rates = [learning_rate(epoch, step, **COSINE, unit="epoch") for step in range(4)]
        assert rates == pytest.approx([expected] * 4)


def test_the_cosine_per_step_falls_within_an_epoch_and_passes_through_the_epochs():
    rates = [learning_rate(e, s, **COSINE, unit="step") for e in range(10) for s in range(4)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 40
    assert rates[20] == learning_rate(5, 0, **COSINE, unit="epoch") == pytest.approx(0.25)


@pytest.mark.parametrize(("unit", "ticks"), [("epoch", 2), ("step", 8)])
def test_warm_up_is_linear_from_the_first_tick_and_ends_at_the_base_rate(unit, ticks):
    options = {**COSINE, "warmup_epochs": 2, "unit": unit}
    rates = [learning_rate(e, s, **options) for e in range(2) for s in range(4)]
    rates = rates if unit == "step" else rates[::4]
    assert rates == pytest.approx([0.5 * (i + 1) / ticks for i in range(ticks)])
    assert learning_rate(2, 0, **options) == pytest.approx(0.5)
    assert learning_rate(6, 0, **options) == pytest.approx(0.25)  # half of the eight left


def _reference_lars(w, gradients, *, lr, momentum, weight_decay, eta):
    """You et al. 2017, Algorithm 1, without polynomial decay."""
    w, v = w.clone(), torch.zeros_like(w)
    for g in gradients:
        g = g + weight_decay * w
        local = eta * w.norm() / g.norm()
        v = momentum * v + local * g
        w = w - lr * v
    return w


def test_lars_is_its_algorithm_on_weights_and_momentum_on_vectors():
    layer = nn.Linear(5, 3)
    start = {name: p.detach().clone() for name, p in layer.named_parameters()}
    options = {"lr": 2.0, "momentum": 0.9, "weight_decay": 0.1}
    optimizer = LARS(layer.parameters(), **options, eta=0.02)
    plain = torch.nn.Parameter(start["bias"].clone())
    sgd = torch.optim.SGD([plain], lr=2.0, momentum=0.9)
    gradients = [torch.randn(3, 5) for _ in range(4)]
    for g in gradients:
        layer.weight.grad, layer.bias.grad = g.clone(), g[:, 0].clone()
        plain.grad = g[:, 0].clone()
        optimizer.step()
        sgd.step()
        assert torch.equal(layer.weight.grad, g)  # gradients are read, not changed
    expected = _reference_lars(start["weight"], gradients, **options, eta=0.02)
    torch.testing.assert_close(layer.weight.detach(), expected)
    torch.testing.assert_close(layer.bias.detach(), plain.detach())


def test_lars_moves_a_weight_that_is_zero():
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.grad = torch.ones(2, 2)
    LARS(layer.parameters(), 0.5).step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 2), -0.5))


def test_frozen_parameters_are_left_out_and_everything_else_decays():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    optimizer = create_optimizer("sgd", model, lr=0.1, momentum=0.9, weight_decay=0.3)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 3 and group["weight_decay"] == 0.3
    assert model[0].bias not in set(group["params"])
