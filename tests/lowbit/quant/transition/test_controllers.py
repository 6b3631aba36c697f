"""Controllers, scopes and target schedules against loops written out in float64."""

import math

import pytest
import torch
from torch import nn, optim

from lowbit.quant import Precision, quantize, quantized_layers, t_variant, target_rate
from lowbit.quant.transition.controllers import CONTROLLERS
from lowbit.quant.transition.target_rate import TargetSchedule

M, ETA, U_0, R_0, STEPS = 0.9, 0.05, 0.3, 0.03, 50


def problem(controller, scope, *, bits=3, policy="tr"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 30, bias=False), nn.Linear(30, 5, bias=False))
    quantize(net, policy, Precision(bits, bits))
    optimizer = t_variant(optim.SGD)(
        net.parameters(),
        model=net,
        lr=U_0,
        target=R_0,
        total_steps=STEPS,
        controller=controller,
        scope=scope,
        eta=ETA,
        momentum_k=M,
    )
    return net, optimizer


def _reference_update(name, u, k_running, r):
    """Eqs. 11, S1 and S2, with the guards of K = 0."""
    if name in ("eq11", "s3"):
        return max(0.0, u + ETA * (r - k_running))
    ratio = min(r / k_running, 10.0) if k_running > 0 else 1.0
    return u * ratio if name == "s1" else M * u + (1 - M) * u * ratio


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", [n for n, c in CONTROLLERS.items() if not c.scaled])
def test_controllers_follow_their_equations(name, scope):
    net, optimizer = problem(name, scope)
    layers = list(quantized_layers(net).values())
    sizes = [layer.weight.numel() for layer in layers]
    delta = 1 / 4 if name == "s3" else 1.0  # the level distance of three bits
    running, rate = [0.0, 0.0], [U_0, U_0]
    codes_before = values_before = None
    generator = torch.Generator().manual_seed(3)
    moved = 0
    for t in range(20):
        codes = [layer.w_quant.codes(layer.weight).clone() for layer in layers]
        values = [layer.quantized_weight().detach().clone() for layer in layers]
        r = delta * R_0 * 0.5 * (1 + math.cos(math.pi * t / STEPS))
        sums = [0.0, 0.0]
        for i in range(2):
            if codes_before is not None and name == "s3":
                sums[i] = (values[i] - values_before[i]).abs().double().sum().item()
            elif codes_before is not None:
                sums[i] = (codes[i] != codes_before[i]).double().sum().item()
        k = [s / n for s, n in zip(sums, sizes, strict=True)]
        if scope == "global":
            k = [sum(sums) / sum(sizes)] * 2
        moved += sum(sums) > 0
        for i in range(2):
            running[i] = M * running[i] + (1 - M) * k[i]
            rate[i] = _reference_update(name, rate[i], running[i], r)
        codes_before, values_before = codes, values
        for layer in layers:
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator) * 0.1
        optimizer.step()
        assert optimizer.rates()["running"] == pytest.approx(running, abs=1e-9)
        assert optimizer.rates()["lr"] == pytest.approx(rate, rel=1e-6)
    assert moved > 5


def test_binary_effective_step_is_half_the_distance_between_its_values():
    """Eq. 8: a flip from -1 to +1 counts 1, so that s3 of binary weights is eq11."""
    policy = {
        "name": "binary",
        "weight": {"kind": "Sign"},
        "activation": {"kind": "Interval"},
        "first": "target",
    }
    runs = {}
    for name in ("eq11", "s3"):
        net, optimizer = problem(name, "layer", bits=1, policy=policy)
        generator = torch.Generator().manual_seed(3)
        for _ in range(12):
            for layer in quantized_layers(net).values():
                layer.weight.grad = torch.randn(layer.weight.shape, generator=generator)
            optimizer.step()
        runs[name] = optimizer.rates()
    assert runs["eq11"] == runs["s3"]
    assert runs["s3"]["effective_step"] == runs["s3"]["rate"]
    assert min(runs["s3"]["rate"]) > 0


def test_global_scope_with_one_layer_is_layer_scope():
    runs = []
    for scope in ("layer", "global"):
        torch.manual_seed(0)
        net = quantize(nn.Sequential(nn.Linear(9, 9, bias=False)), "tr", Precision(2, 2))
        optimizer = t_variant(optim.Adam)(
            net.parameters(), model=net, lr=0.05, target=0.1, total_steps=30, scope=scope
        )
        for _ in range(15):
            net[0].weight.grad = torch.randn(9, 9)
            optimizer.step()
        runs.append((net[0].weight, optimizer.rates()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1] and runs[0][1]["running"][0] > 0


def test_ratios_wait_for_the_first_transition_and_are_bounded():
    for name, largest in (("s1", 10.0), ("s2", M + (1 - M) * 10)):
        update = CONTROLLERS[name].update
        u, r = torch.tensor([0.2, 0.2]), torch.tensor([0.5, 0.5])
        k = torch.tensor([0.0, 1e-6])
        assert update(u, k, r, ETA, M).tolist() == pytest.approx([0.2, 0.2 * largest])


def test_target_schedules():
    assert target_rate(1e-3, 4) == pytest.approx(2e-3)
    for step, expected in ((0, 1.0), (5, 0.5), (10, 0.0), (12, 0.0)):
        assert TargetSchedule(10).at(step, 1.0) == pytest.approx(expected)
    assert TargetSchedule(10, "linear").at(4, 1.0) == pytest.approx(0.6)
    assert TargetSchedule(10, "linear", final=0.2).at(5, 1.0) == pytest.approx(0.6)
    assert TargetSchedule(10, "cosine", final=0.2).at(10, 1.0) == pytest.approx(0.2)
    assert TargetSchedule(10, "constant").at(9, 1.0) == 1.0
    steps = TargetSchedule(10, "step", milestones=(3, 6))
    assert [steps.at(t, 1.0) for t in (2, 3, 5, 6, 99)] == pytest.approx([1, 0.2, 0.2, 0.04, 0.04])


def test_refused_schedules():
    with pytest.raises(ValueError, match="schedule 'cosin'"):
        TargetSchedule(10, "cosin")
    with pytest.raises(ValueError, match="total_steps is 0"):
        TargetSchedule(0)
    with pytest.raises(ValueError, match="'step' needs milestones"):
        TargetSchedule(10, "step")
    with pytest.raises(ValueError, match="got milestones"):
        TargetSchedule(10, "cosine", milestones=(3,))
