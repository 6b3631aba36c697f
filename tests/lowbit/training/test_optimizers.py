"""Optimizers against their formulas and torch's own, and what of a network they are given."""

import pytest
import torch
from torch import nn

from lowbit.quant import quantize, scales
from lowbit.training.lars import LARC, LARS
from lowbit.training.optimizers import (
    OPTIMIZERS,
    T_VARIANTS,
    build_optimizer,
    groups_with_constant,
    parameter_groups,
)


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


def _reference_larc(w, gradients, *, lr, momentum, weight_decay, eta):
    """The rate is eta |w| / (|g| + wd |w|), at most lr; written for one tensor."""
    w, v = w.clone(), torch.zeros_like(w)
    for g in gradients:
        local = eta * w.norm() / (g.norm() + weight_decay * w.norm())
        if w.norm() == 0:
            local, decayed = torch.tensor(lr), g
        else:
            decayed = g + weight_decay * w
        v = momentum * v + min(local.item() / lr, 1) * decayed
        w = w - lr * v
    return w


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("eta", [0.02, 50.0])  # the second is clipped at lr
def test_larc_is_its_rule_on_every_tensor_in_float64(eta, weight_decay):
    layer = nn.Linear(5, 3).double()
    with torch.no_grad():
        layer.bias.zero_()
    start = {name: p.detach().clone() for name, p in layer.named_parameters()}
    options = {"lr": 2.0, "momentum": 0.9, "weight_decay": weight_decay}
    optimizer = LARC(layer.parameters(), **options, eta=eta)
    gradients = [torch.randn(3, 5, dtype=torch.float64) for _ in range(4)]
    for g in gradients:
        layer.weight.grad, layer.bias.grad = g.clone(), g[:, 0].clone()
        optimizer.step()
        assert torch.equal(layer.weight.grad, g)
    parts = {"weight": gradients, "bias": [g[:, 0] for g in gradients]}
    for name, p in layer.named_parameters():
        expected = _reference_larc(start[name], parts[name], **options, eta=eta)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-12)


def test_lars_trusts_weights_without_decay_too():
    """In packages that skip the ratio at weight decay 0 this would be a step of SGD."""
    layer = nn.Linear(5, 3, bias=False).double()
    before, g = layer.weight.detach().clone(), torch.randn(3, 5, dtype=torch.float64)
    layer.weight.grad = g
    LARS(layer.parameters(), 1.6, weight_decay=0.0).step()
    expected = before - 1.6 * 1e-3 * before.norm() / g.norm() * g
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [LARS, LARC])
def test_quantizer_scales_take_plain_steps_whatever_their_shape(kind):
    scale = nn.Parameter(torch.full((3, 1, 1, 1), 2.0))
    scale.grad = torch.ones_like(scale)
    kind([{"params": [scale], "role": "scale", "weight_decay": 0.0}], 0.1).step()
    torch.testing.assert_close(scale.detach(), torch.full((3, 1, 1, 1), 1.9))


def test_lars_moves_a_weight_that_is_zero():
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.grad = torch.ones(2, 2)
    LARS(layer.parameters(), 0.5).step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 2), -0.5))


def _build(name, model, **options):
    return build_optimizer(name, groups_with_constant(model, None), fused=True, **options)


def test_frozen_parameters_are_left_out_and_everything_else_decays():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    optimizer = _build("sgd", model, lr=0.1, momentum=0.9, weight_decay=0.3)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 3 and group["weight_decay"] == 0.3
    assert model[0].bias not in set(group["params"])


def _steps(optimizer, layer, gradients):
    for g in gradients:
        layer.weight.grad = g.clone()
        optimizer.step()
    return layer.weight.detach()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_sgd_and_adamw_are_torchs_own(name):
    layers = [nn.Linear(4, 3, bias=False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    gradients = [torch.randn(3, 4) for _ in range(3)]
    options = {"lr": 0.1, "weight_decay": 0.05}
    if name == "sgd":
        ours = _build(name, layers[0], momentum=0.8, nesterov=True, **options)
        theirs = torch.optim.SGD(layers[1].parameters(), momentum=0.8, nesterov=True, **options)
    else:
        ours = _build(name, layers[0], beta1=0.8, **options)
        theirs = torch.optim.AdamW(layers[1].parameters(), betas=(0.8, 0.999), **options)
    first, second = (
        _steps(optimizer, layer, gradients)
        for optimizer, layer in zip((ours, theirs), layers, strict=True)
    )
    torch.testing.assert_close(first, second)


def test_a_constant_part_has_a_group_of_its_own():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "predictor": nn.Linear(2, 2)})
    groups = groups_with_constant(model, model["predictor"])
    optimizer = build_optimizer("lars", groups, lr=0.1)
    scheduled, constant = optimizer.param_groups
    assert (scheduled["scheduled"], constant["scheduled"]) == (True, False)
    assert scheduled["params"] == list(model["encoder"].parameters())
    assert constant["params"] == list(model["predictor"].parameters())


def test_lars_skips_what_has_no_gradient_and_keeps_its_buffers_apart():
    layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    optimizer = LARS(layers.parameters(), 0.1)
    before = [p.detach().clone() for p in layers[1].parameters()]
    layers[0](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(layers[1].parameters(), before, strict=True))
    assert len(optimizer.state) == 2


def test_a_role_has_numbers_of_its_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    groups = parameter_groups(model, lr=0.1, weight_decay=0.3, norm={"weight_decay": 0.0})
    assert [(g["role"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("other", 0.1, 0.3),
        ("norm", 0.1, 0.0),
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_given_what_it_takes(name):
    model = nn.Linear(2, 2)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.3)
    optimizer = build_optimizer(name, groups, lr=0.1, momentum=0.7, beta1=0.6, fused=True)
    assert type(optimizer) is OPTIMIZERS[name]
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.3 and group.get("momentum", 0.7) == 0.7
    if name == "adamw":
        assert group["betas"] == (0.6, 0.999)
    assert (f"{name}t" in T_VARIANTS) == (name not in ("lars", "larc"))


@pytest.mark.parametrize(
    ("policy", "rates"),
    [
        ("lsq", {0.2}),
        ("lsqplus", {0.2}),
        ("interval", {0.02}),
        ({"base": "lsq", "activation": {"kind": "Interval"}}, {0.2, 0.02}),
    ],
    ids=str,
)
def test_scales_learn_at_the_rate_of_their_quantizer(policy, rates):
    """LSQ's and LSQ+'s own gradient scale stands instead of the tenth of TR's supplement."""
    model = quantize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)), policy)
    groups = [g for g in parameter_groups(model, lr=0.2, weight_decay=0.3) if g["role"] == "scale"]
    assert sorted(g["lr"] for g in groups) == pytest.approx(sorted(rates))
    grouped = [id(p) for g in groups for p in g["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {id(p) for p in scales(model)}
    asked = parameter_groups(model, lr=0.2, weight_decay=0.3, scale={"lr": 0.5})
    assert {g["lr"] for g in asked if g["role"] == "scale"} == {0.5}
