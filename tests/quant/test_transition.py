"""Transition-rate scheduling against SPEC C: equations, and what must hold over a trajectory."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn, optim

from quant import Precision, quantize, quantized_layers, target_rate, transition
from quant.transition import LINEAR, target_at

SGDT = transition(optim.SGD)


def make(bits=2, width=40, lr=0.05, target=0.05, steps=200, **options):
    """A two-layer quantized net, its SGDT, and a noisy regression problem to step on."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, width, bias=False), nn.Linear(width, width, bias=False)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    quantize(net, "tr", Precision(bits, bits))
    optimizer = SGDT(
        net.parameters(),
        model=net,
        lr=lr,
        target=target,
        total_steps=steps,
        momentum=0.9,
        **options,
    )
    return net, optimizer


def train(net, optimizer, steps, seed=1, start=0):
    """Step on fresh noise each iteration; return the codes after each step, layer by layer."""
    history = []
    for t in range(start, start + steps):
        generator = torch.Generator().manual_seed(seed * 10_000 + t)
        x, y = (torch.randn(16, n, generator=generator) for n in (8, net[2].out_features))
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
        history.append(codes(net))
    return history


def codes(net):
    return [layer.w_quant.codes(layer.weight) for layer in quantized_layers(net).values()]


def test_controller_follows_equations_10_and_11():
    net, optimizer = make(target=0.03, steps=50, momentum_k=0.9, eta=0.05)
    layers = list(quantized_layers(net).values())
    running, rate, before = [0.0, 0.0], [0.05, 0.05], None
    for t in range(20):
        now = [layer.w_quant.codes(layer.weight).clone() for layer in layers]
        target = 0.03 * 0.5 * (1 + math.cos(math.pi * t / 50))
        for i in range(2):
            k = 0.0 if before is None else (now[i] != before[i]).float().mean().item()
            running[i] = 0.9 * running[i] + 0.1 * k
            rate[i] = max(0.0, rate[i] + 0.05 * (target - running[i]))
        before = now
        train(net, optimizer, 1, start=t)
        rates = optimizer.rates()
        assert rates["running"] == pytest.approx(running, abs=1e-6)
        assert rates["lr"] == pytest.approx(rate, abs=1e-6)
        assert rates["target"] == pytest.approx(target)


def test_running_sum_identity():
    """[T:C7] Σk = ΣK + m/(1-m) K_T; unclamped U_T = U_0 + η Σ(R - K)."""
    net, optimizer = make(target=0.2, steps=10**9, eta=0.001)
    before, k_sum, running_sum, previous = codes(net), 0.0, 0.0, None
    for t in range(60):
        now = codes(net)
        if previous is not None:
            k_sum += (now[0] != previous[0]).float().mean().item()
        previous = now
        train(net, optimizer, 1, start=t)
        running_sum += optimizer.rates()["running"][0]
    rates = optimizer.rates()
    assert k_sum > 0 and not torch.equal(before[0], now[0])
    assert k_sum == pytest.approx(running_sum + 99 * rates["running"][0], rel=1e-4)
    assert rates["lr"][0] == pytest.approx(0.05 + 0.001 * (60 * 0.2 - running_sum), rel=1e-4)


@pytest.mark.parametrize("base", LINEAR)
def test_eta_zero_is_the_base_optimizer(base):
    """[T:C5] for every optimizer: the same trajectory, bit for bit."""
    net, _ = make()
    twin = copy.deepcopy(net)
    for model in (net, twin):
        for layer in quantized_layers(model).values():
            layer.w_quant.requires_grad_(False)
    variant = transition(base)(
        net.parameters(), model=net, lr=0.01, target=0.1, total_steps=9, eta=0
    )
    plain = base(twin.parameters(), lr=0.01)
    train(net, variant, 8)
    train(twin, plain, 8)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        # U is float32, which 0.01 is not: the only difference
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_target_equal_to_the_rate_keeps_the_learning_rate():
    """R ≡ K ≡ 0 on weights that cannot move: U stays U_0."""
    net, optimizer = make(target=0.0)
    for _ in range(5):
        optimizer.zero_grad()
        (0 * net(torch.randn(4, 8))).sum().backward()
        optimizer.step()
    assert optimizer.rates()["lr"] == pytest.approx([0.05, 0.05])


def test_zero_target_only_slows_down_and_freezes_codes():
    """[T:C8] R ≡ 0: U never rises; once it is 0 no code changes, whatever momentum is stored."""
    net, optimizer = make(target=0.0, eta=2.0)
    rates, history = [], []
    for t in range(120):
        history += train(net, optimizer, 1, start=t)
        rates.append(optimizer.rates()["lr"])
    for layer in range(2):
        u = [r[layer] for r in rates]
        assert all(b <= a for a, b in itertools.pairwise(u))
        frozen = next(t for t, value in enumerate(u) if value == 0)
        assert frozen < 100
        for t in range(frozen, 120):
            assert torch.equal(history[t][layer], history[frozen][layer])


def test_without_crossings_the_rate_need_not_reach_zero():
    """[T:C9] R ≡ 0 but no weight crosses a transition point: U stays where it was."""
    net, optimizer = make(target=0.0, lr=1e-9)
    train(net, optimizer, 30)
    assert min(optimizer.rates()["lr"]) > 0


def test_zero_rate_freezes_the_weight_at_once_despite_momentum():
    """[T:C6] U multiplies the whole step, so a filled momentum buffer moves nothing."""
    net, optimizer = make()
    train(net, optimizer, 5)
    optimizer.target, optimizer.eta = 0.0, 1e9
    train(net, optimizer, 2, start=5)
    assert optimizer.rates()["lr"] == [0.0, 0.0]
    frozen = [layer.weight.clone() for layer in quantized_layers(net).values()]
    scale = net[0].a_quant.q_scale.clone()
    train(net, optimizer, 3, start=7)
    for layer, weight in zip(quantized_layers(net).values(), frozen, strict=True):
        assert torch.equal(layer.weight, weight)
    assert not torch.equal(net[0].a_quant.q_scale, scale)  # everything else goes on


def test_running_rate_follows_a_slowly_falling_target():
    """[T:C10] K within 25 % of R in the middle of the run."""
    net, optimizer = make(width=100, target=0.02, steps=3000, lr=0.02, eta=0.02, bits=3)
    centres = [layer.weight.clone() for layer in quantized_layers(net).values()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(1600):  # noise around a minimum, so that weights neither settle nor run away
        for layer, centre in zip(quantized_layers(net).values(), centres, strict=True):
            noise = torch.randn(centre.shape, generator=generator)
            layer.weight.grad = layer.weight.detach() - centre + 0.1 * noise
        optimizer.step()
    rates = optimizer.rates()
    for running in rates["running"]:
        assert running == pytest.approx(rates["target"], rel=0.25)


def test_effective_step_is_the_rate_times_the_level_distance():
    """[T:C11] mean |w_q^t - w_q^{t-1}| = δ k for adjacent moves."""
    net, optimizer = make(bits=4, lr=1e-4)
    layer = net[2]
    for t in range(10):
        before, values = layer.w_quant.codes(layer.weight), layer.quantized_weight().detach()
        train(net, optimizer, 1, start=t)
        moved = (layer.w_quant.codes(layer.weight).int() - before.int()).abs()
        assert moved.max() <= 1
        step = (layer.quantized_weight().detach() - values).abs().mean()
        assert step.item() == pytest.approx(moved.float().mean().item() / 8, abs=1e-7)


def test_each_quantized_layer_has_its_own_group_and_frozen_scale():
    net, optimizer = make()
    layers = list(quantized_layers(net).values())
    assert [g["params"] for g in optimizer.param_groups[-2:]] == [[x.weight] for x in layers]
    grouped = [p for g in optimizer.param_groups for p in g["params"]]
    learned = [p for p in net.parameters() if p.requires_grad]
    assert len(grouped) == len(set(grouped)) == len(learned) == len(list(net.parameters())) - 2
    assert not any(layer.w_quant.q_scale.requires_grad for layer in layers)
    assert all(layer.a_quant.q_scale.requires_grad for layer in layers)


def test_group_options_are_kept():
    net, _ = make()
    weights = [layer.weight for layer in quantized_layers(net).values()]
    others = [p for p in net.parameters() if all(p is not w for w in weights)]
    optimizer = SGDT(
        [{"params": weights, "weight_decay": 0.5}, {"params": others, "lr": 0.3}],
        model=net,
        lr=0.1,
        target=0.1,
        total_steps=5,
    )
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 0.5, 0.5]
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.1, 0.1]


def test_a_scheduler_finds_the_learning_rates_it_left():
    net, optimizer = make()
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for t in range(5):
        train(net, optimizer, 1, start=t)
        scheduler.step()
    assert len({g["lr"] for g in optimizer.param_groups}) == 1


@pytest.mark.parametrize("base", [optim.SGD, optim.AdamW])
def test_resume_equals_the_straight_run(base, tmp_path):
    options = {"lr": 0.02, "target": 0.05, "total_steps": 40}
    straight, _ = make()
    resumed = copy.deepcopy(straight)
    first = transition(base)(straight.parameters(), model=straight, **options)
    train(straight, first, 12)
    a = transition(base)(resumed.parameters(), model=resumed, **options)
    train(resumed, a, 7)
    torch.save({"model": resumed.state_dict(), "optimizer": a.state_dict()}, tmp_path / "x.pth")
    again, _ = make()
    b = transition(base)(again.parameters(), model=again, **options)
    state = torch.load(tmp_path / "x.pth", weights_only=True)
    again.load_state_dict(state["model"])
    b.load_state_dict(state["optimizer"])
    assert all(c.dtype == torch.int8 for c in b.state_dict()["transition"]["codes"])
    train(again, b, 5, start=7)
    for p, q in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
    assert b.rates() == first.rates()


def test_target_schedules():
    assert target_rate(1e-3, 4) == pytest.approx(2e-3)
    assert target_at(1.0, 0, 10, "cosine") == 1 and target_at(1.0, 10, 10, "cosine") == 0
    assert target_at(1.0, 5, 10, "cosine") == pytest.approx(0.5)
    assert target_at(1.0, 4, 10, "linear") == pytest.approx(0.6)
    assert target_at(1.0, 12, 10, "linear") == 0 and target_at(1.0, 9, 10, "constant") == 1


def test_refusals():
    with pytest.raises(ValueError, match="linear in its learning rate"):
        transition(optim.Rprop)
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="belongs to a quantized layer"):
        SGDT(net.parameters(), model=net, lr=0.1, target=0.1, total_steps=5)
    with pytest.raises(ValueError, match="schedule 'cosin'"):
        make(schedule="cosin")
    quantized, optimizer = make()
    with pytest.raises(ValueError, match="no transition rates"):
        optimizer.load_state_dict(optim.SGD(quantized.parameters(), lr=0.1).state_dict())
