"""Options of the controller for trainings much shorter than the paper's, against float64 loops."""

import math

import pytest
import torch
from torch import nn, optim

from lowbit.quant import Precision, quantize, quantized_layers, t_variant

LR, M, STEPS, R_0 = 0.3, 0.9, 60, 0.03


def make(base=optim.SGD, *, steps=STEPS, target=R_0, **options):
    """A two-layer quantized net and its T-optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 30, bias=False), nn.Linear(30, 5, bias=False))
    quantize(net, "tr", Precision(3, 3))
    settings = {"lr": LR, "target": target, "total_steps": steps, "momentum_k": M, **options}
    optimizer = t_variant(base)(net.parameters(), model=net, **settings)
    return net, optimizer


def drive(net, optimizer, steps, start=0):
    """Step on noise; return k, K and U of both layers at each step."""
    seen = []
    for t in range(start, start + steps):
        generator = torch.Generator().manual_seed(t)
        for layer in quantized_layers(net).values():
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator) * 0.1
        optimizer.step()
        rates = optimizer.rates()
        seen.append((rates["rate"], rates["running"], rates["lr"]))
    return seen


def _reference(seen, *, eta, m, target, highest=math.inf, waits=0, steps=STEPS):
    """Eqs. 10 and 11 of the first layer, from the k that were seen; U stays at U_0 for `waits` steps."""
    k_before, running, u, found = 0.0, 0.0, LR, []
    for t, (k, _, _) in enumerate(seen):
        running = m * running + (1 - m) * k_before
        if t >= waits:
            r = target * 0.5 * (1 + math.cos(math.pi * t / steps))
            u = min(max(0.0, u + eta * (r - running)), highest * LR)
        found.append((running, u))
        k_before = k[0]
    return found


def _check(seen, found):
    assert sum(k[0] > 0 for k, _, _ in seen) > 5
    assert [running[0] for _, running, _ in seen] == pytest.approx([x for x, _ in found], abs=1e-9)
    assert [u[0] for _, _, u in seen] == pytest.approx([u for _, u in found], rel=1e-6)


@pytest.mark.parametrize("base", [optim.SGD, optim.Adam])
def test_time_constants_are_the_same_share_of_any_training(base):
    """A tenth of the paper's steps: η ten times as large, K over a tenth of the steps."""
    options = {"controller": "scaled", "eta": 0.01, "momentum_k": 0.99}
    seen = drive(*make(base, steps=7840, **options), 30)
    _check(seen, _reference(seen, eta=0.1, m=0.9, target=R_0, steps=7840))
    seen = drive(*make(base, steps=784 // 2, **options), 30)  # K cannot average over half a step
    _check(seen, _reference(seen, eta=2.0, m=0.0, target=R_0, steps=784 // 2))


@pytest.mark.parametrize("base", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("highest", [0.5, 1.0, 1.2])
def test_a_rate_below_an_unreachable_target_stops_at_its_bound(base, highest):
    net, optimizer = make(base, target=0.9, eta=LR, highest=highest)
    seen = drive(net, optimizer, 30)
    _check(seen, _reference(seen, eta=LR, m=M, target=0.9, highest=highest))
    assert seen[20][2] == pytest.approx([highest * LR] * 2)
    free = drive(*make(base, target=0.9, eta=LR), 30)
    assert min(free[20][2]) > 2 * LR  # without the bound U winds up


@pytest.mark.parametrize("base", [optim.SGD, optim.Adam])
def test_the_natural_target_is_the_plain_optimizers_own_rate(base):
    net, optimizer = make(base, target=None, eta=LR)
    seen = drive(net, optimizer, 30)
    measured = STEPS // 20

    plain = make(base)[0]  # the same weights, stepped by the optimizer itself
    layers = list(quantized_layers(plain).values())
    stepper = base([layer.weight for layer in layers], lr=LR)
    changed = 0
    for t in range(measured):
        generator = torch.Generator().manual_seed(t)
        before = [layer.w_quant.codes(layer.weight).clone() for layer in layers]
        for layer in layers:
            layer.weight.grad = torch.randn(layer.weight.shape, generator=generator) * 0.1
        stepper.step()
        after = [layer.w_quant.codes(layer.weight) for layer in layers]
        changed += sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    natural = changed / measured / sum(layer.weight.numel() for layer in layers)

    assert natural > 0 and optimizer.target == pytest.approx(natural, rel=1e-12)
    _check(seen, _reference(seen, eta=LR, m=M, target=natural, waits=measured))


@pytest.mark.parametrize("stop", [1, 2, 3, 10])
@pytest.mark.parametrize("base", [optim.SGD, optim.AdamW])
def test_a_resumed_optimizer_continues_to_the_same_bits(base, stop):
    """Before, at and after the end of the measuring, with all three options."""
    options = {"target": None, "controller": "scaled", "highest": 1.1, "eta": 1e-4}
    net, optimizer = make(base, **options)
    straight = drive(net, optimizer, 20)
    first, second = make(base, **options), make(base, **options)
    drive(*first, stop)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    assert drive(*second, 20 - stop, start=stop) == straight[stop:]
    weights = zip(net.parameters(), second[0].parameters(), strict=True)
    assert all(a.equal(b) for a, b in weights)
    assert straight[-1][2] != [LR, LR] and second[1].target == optimizer.target


def test_the_target_is_read_as_measured_so_far():
    net, optimizer = make(target=None, steps=400)
    assert optimizer.rates()["target"] == 0.0
    seen = drive(net, optimizer, 11)
    sizes = [layer.weight.numel() for layer in quantized_layers(net).values()]
    rates = [sum(k * n for k, n in zip(row[0], sizes, strict=True)) / sum(sizes) for row in seen]
    assert optimizer.rates()["target"] == pytest.approx(sum(rates[:10]) / 10)
