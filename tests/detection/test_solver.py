"""Param groups, SGD and SGDT, and the cosine with warm-up."""

import math

import pytest
import torch
from torch import nn

from lowbit.detection.solver import (
    Solver,
    build_optimizer,
    build_scheduler,
    lr_factor,
)
from lowbit.quant import calibrate, quantize, quantized_layers, scales, set_precision
from lowbit.training.oscillation_control import Oscillation

SOLVER = Solver(
    "sgd", lr=0.1, iterations=100, weight_decay=0.3, weight_decay_norm=0.2, scale_lr_factor=0.05
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
    )


@pytest.fixture
def quantized(request):
    net = quantize(network(), getattr(request, "param", "lsq"))
    calibrate(net, [torch.randn(4, 3, 8, 8)])
    set_precision(net, "4w4a")
    return net


def test_every_trainable_parameter_is_in_one_group(quantized):
    next(quantized.parameters()).requires_grad_(False)  # one frozen on purpose
    groups = build_optimizer(quantized, SOLVER).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in quantized.parameters() if p.requires_grad}


def test_roles_have_their_own_rates_and_decays(quantized):
    groups = {group["role"]: group for group in build_optimizer(quantized, SOLVER).param_groups}
    assert list(groups) == ["other", "norm", "scale", "latent"]
    assert {r: (g["lr"], g["weight_decay"]) for r, g in groups.items()} == {
        "other": (0.1, 0.3),
        "norm": (0.1, 0.2),
        "scale": (0.1 * 0.05, 0.0),
        "latent": (0.1, 0.3),
    }
    latent = [layer.weight for layer in quantized_layers(quantized).values()]
    assert [id(p) for p in groups["latent"]["params"]] == [id(p) for p in latent]
    assert {id(p) for p in groups["scale"]["params"]} == {id(p) for p in scales(quantized)}
    assert len(groups["norm"]["params"]) == 4


@pytest.mark.parametrize(
    ("quantized", "factor"), [("lsq", 1.0), ("tr", 0.1)], indirect=["quantized"]
)
def test_scales_learn_at_their_quantizers_rate_by_default(quantized, factor):
    groups = build_optimizer(quantized, Solver("sgd", lr=0.3, iterations=10)).param_groups
    assert [g["lr"] for g in groups if g["role"] == "scale"] == [pytest.approx(0.3 * factor)]


@pytest.mark.parametrize("quantized", ["lsq", "interval"], indirect=True)
def test_oscillating_weights_are_pulled_to_the_middle_of_their_intervals(quantized):
    """The step of SGD on 2 λ (w - ŵ) alone, in float64; λ is the final one at the schedule's end."""
    section = Oscillation(method="dampening", weight=0.3, reduce="sum", schedule="constant")
    solver = Solver("sgd", lr=0.1, iterations=100, momentum=0, weight_decay=0, oscillation=section)
    optimizer = build_optimizer(quantized, solver)
    wanted = []
    for layer in quantized_layers(quantized).values():
        w, gamma = layer.weight.detach().double(), 1 if "LSQ" in str(layer.w_quant) else 8
        step = layer.w_quant.q_scale.detach().double() / gamma
        inside = (w / step).clamp(-8, 7)
        wanted.append(w - 0.1 * 2 * 0.3 * (inside - inside.round()) * step)
        layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    for layer, w in zip(quantized_layers(quantized).values(), wanted, strict=True):
        torch.testing.assert_close(layer.weight.detach().double(), w, rtol=1e-5, atol=1e-7)


def test_a_network_in_full_precision_has_two_roles():
    assert [g["role"] for g in build_optimizer(network(), SOLVER).param_groups] == ["other", "norm"]


def test_lsq_scales_get_gradients_and_move_at_their_own_rate(quantized):
    """A step of SGD without momentum moves a scale by lr * factor * gradient, decay left out."""
    solver = Solver("sgd", lr=0.1, iterations=10, momentum=0.0, scale_lr_factor=0.05)
    optimizer = build_optimizer(quantized, solver)
    quantized(torch.randn(4, 3, 8, 8)).square().sum().backward()
    before = [scale.detach().clone() for scale in scales(quantized)]
    optimizer.step()
    assert len(before) == 4  # a weight's and an activation's for each of two layers
    for scale, old in zip(scales(quantized), before, strict=True):
        assert scale.grad.abs() > 0
        torch.testing.assert_close(scale.detach(), old - 0.1 * 0.05 * scale.grad)


@pytest.mark.parametrize("quantized", ["tr"], indirect=True)
def test_sgdt_starts_at_lr_and_its_target(quantized):
    solver = Solver("sgdt", lr=0.1, iterations=8, lambda_=0.01, weight_bits=4)
    optimizer = build_optimizer(quantized, solver)
    rates = optimizer.rates()
    assert rates["target"] == pytest.approx(0.01 * math.sqrt(4))
    assert rates["lr"] == pytest.approx([0.1, 0.1])
    assert not any(
        layer.w_quant.q_scale.requires_grad for layer in quantized_layers(quantized).values()
    )


@pytest.mark.parametrize("quantized", ["tr"], indirect=True)
def test_codes_stay_once_u_is_zero(quantized):
    """With target 0 and transitions going on, U falls to 0; from then on no code changes."""
    solver = Solver("sgdt", lr=0.5, iterations=10_000, lambda_=1e-9)
    optimizer = build_optimizer(quantized, solver)
    optimizer.eta = 50.0  # a controller quick enough to get there in a few steps
    layers = list(quantized_layers(quantized).values())
    frozen, moved_before = None, False
    for _ in range(60):
        start = [layer.w_quant.codes(layer.weight) for layer in layers]
        optimizer.zero_grad()
        quantized(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        codes = [layer.w_quant.codes(layer.weight) for layer in layers]
        changed = any(not torch.equal(a, b) for a, b in zip(start, codes, strict=True))
        if frozen is not None:
            assert not changed
        moved_before |= changed
        if not any(optimizer.rates()["lr"]) and frozen is None:
            frozen = codes
    assert frozen is not None and moved_before


def test_the_rate_is_a_line_and_then_a_cosine():
    solver = Solver("sgd", lr=1.0, iterations=100, warmup_iterations=20, warmup_factor=0.1)
    cosine_at_20 = 0.5 * (1 + math.cos(math.pi * 0.2))
    assert lr_factor(0, solver) == pytest.approx(0.1)
    assert lr_factor(10, solver) == pytest.approx((0.1 + cosine_at_20) / 2)
    assert lr_factor(20, solver) == pytest.approx(cosine_at_20)
    assert lr_factor(50, solver) == pytest.approx(0.5)
    assert lr_factor(100, solver) == pytest.approx(0.0)


def test_a_cosine_may_end_above_zero():
    solver = Solver("sgd", lr=1e-4, iterations=50, lr_end=1e-6)
    rates = [1e-4 * lr_factor(i, solver) for i in (0, 25, 50)]
    assert rates == pytest.approx([1e-4, (1e-4 + 1e-6) / 2, 1e-6])


def test_a_warm_up_longer_than_the_training_takes_half_of_it():
    solver = Solver("sgd", lr=1.0, iterations=20, warmup_iterations=1000)
    assert (
        max(lr_factor(i, solver) for i in range(20)) == lr_factor(10, solver) == pytest.approx(0.5)
    )


def test_the_scheduler_keeps_the_groups_ratios(quantized):
    optimizer = build_optimizer(quantized, SOLVER)
    scheduler = build_scheduler(optimizer, SOLVER)
    for iteration in range(1, 60):
        optimizer.step()
        scheduler.step()
        factor = lr_factor(iteration, SOLVER)
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
            [0.1 * factor, 0.1 * factor, 0.005 * factor, 0.1 * factor]
        )


@pytest.mark.detectron2
@pytest.mark.parametrize("end", [0.0, 0.001])
def test_detectron2s_scheduler_has_the_same_rates(end):
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler

    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR = 100, 20, 0.1
    cfg.SOLVER.BASE_LR_END = end
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    theirs = build_lr_scheduler(cfg, optimizer)
    ours = Solver("sgd", lr=0.1, iterations=100, warmup_iterations=20, lr_end=end)
    for iteration in range(100):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * lr_factor(iteration, ours))
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kind", ["value", "norm", "full_model"])
def test_clipping_is_torchs(kind, quantized):
    """Against torch.nn.utils on copies of the gradients, right before the step."""
    solver = Solver("sgd", lr=0.1, iterations=10, clip_type=kind, clip_value=0.01)
    optimizer = build_optimizer(quantized, solver)
    quantized(torch.randn(4, 3, 8, 8)).square().sum().backward()
    params = [p for group in optimizer.param_groups for p in group["params"]]
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    for twin, p in zip(twins, params, strict=True):
        twin.grad = p.grad.clone()
    if kind == "value":
        nn.utils.clip_grad_value_(twins, 0.01)
    for part in [[twin] for twin in twins] if kind == "norm" else [twins]:
        if kind != "value":
            nn.utils.clip_grad_norm_(part, 0.01)
    optimizer.step()
    for twin, p in zip(twins, params, strict=True):
        torch.testing.assert_close(p.grad, twin.grad)


@pytest.mark.parametrize("quantized", ["tr"], indirect=True)
@pytest.mark.parametrize(
    ("name", "base"), [("sgdt", "SGD"), ("adamt", "Adam"), ("adamwt", "AdamW")]
)
def test_transition_optimizers_by_name(name, base, quantized):
    optimizer = build_optimizer(quantized, Solver(name, lr=0.1, iterations=8, weight_decay=0.5))
    assert isinstance(optimizer, getattr(torch.optim, base))
    assert type(optimizer).__name__ == f"{base}T"
    roles = {g["role"]: g["weight_decay"] for g in optimizer.param_groups}
    assert roles == {"other": 0.5, "norm": 0.0, "scale": 0.0, "latent": 0.5}


def test_adamw_is_torchs(quantized):
    optimizer = build_optimizer(quantized, Solver("adamw", lr=0.1, iterations=8))
    assert type(optimizer) is torch.optim.AdamW


def test_steps_fall_where_they_are_said_to():
    solver = Solver("sgd", 1.0, 100, schedule="step", milestones=(60, 80), warmup_iterations=10)
    factors = [lr_factor(i, solver) for i in (10, 59, 60, 79, 80, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_factor(5, solver) == pytest.approx((0.001 + 1) / 2)


@pytest.mark.detectron2
def test_detectron2s_steps_are_the_same():
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler

    cfg = get_cfg()
    cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = (60, 80), 100, 70
    cfg.SOLVER.BASE_LR = 0.1
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    theirs = build_lr_scheduler(cfg, optimizer)
    ours = Solver("sgd", 0.1, 100, schedule="step", milestones=(60, 80), warmup_iterations=70)
    for iteration in range(100):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * lr_factor(iteration, ours))
        optimizer.step()
        theirs.step()
