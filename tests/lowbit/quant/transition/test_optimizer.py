"""Transition-rate scheduling against SPEC C: equations, and what must hold over a trajectory."""

import copy
import itertools

import pytest
import torch
from torch import nn, optim

from lowbit.quant import Precision, quantize, quantized_layers, set_precision, t_variant
from lowbit.quant.transition import sgd_step

SGDT = t_variant(optim.SGD)
SEVEN = {
    optim.SGD: {"momentum": 0.9, "weight_decay": 1e-2},
    optim.Adam: {"weight_decay": 1e-2},
    optim.AdamW: {"weight_decay": 1e-1},
    optim.NAdam: {"weight_decay": 1e-2},
    optim.Adamax: {"weight_decay": 1e-2},
    optim.RMSprop: {"momentum": 0.9, "weight_decay": 1e-2},
    optim.Adagrad: {"weight_decay": 1e-2},
}


def make(bits=2, width=40, lr=0.05, target=0.05, steps=200, base=None, **options):
    """A two-layer quantized net and its T-optimizer, SGDT with momentum unless told."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, width, bias=False), nn.Linear(width, width, bias=False)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    quantize(net, "tr", Precision(bits, bits))
    if base is None:
        base, options = optim.SGD, {"momentum": 0.9} | options
    optimizer = t_variant(base)(
        net.parameters(), model=net, lr=lr, target=target, total_steps=steps, **options
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


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("base", SEVEN)
def test_eta_zero_is_the_base_optimizer(base, whole, monkeypatch):
    """[T:C5] the same trajectory, bit for bit, whether SGD takes its short way or the general one."""
    if whole:
        monkeypatch.setattr(sgd_step, "applies_to", lambda *_, **__: False)
    net, variant = make(base=base, lr=0.01, target=0.1, eta=0, **SEVEN[base])
    twin = copy.deepcopy(net)
    plain = base([p for p in twin.parameters() if p.requires_grad], lr=0.01, **SEVEN[base])
    start = codes(twin)
    history = train(net, variant, 12)
    assert not all(torch.equal(a, b) for a, b in zip(history[-1], start, strict=True))
    train(twin, plain, 12)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("base", SEVEN)
def test_the_step_is_the_rate_times_the_base_step(base):
    """From one state, w moves U/lr as far as under the base optimizer, layer by layer."""
    net, variant = make(base=base, lr=0.01, target=0.3, eta=0, **SEVEN[base])
    train(net, variant, 6)
    rates = [0.007, 0.0004]
    variant._rate.copy_(torch.tensor(rates))
    twin = copy.deepcopy(net)
    plain = base([p for p in twin.parameters() if p.requires_grad], lr=0.01, **SEVEN[base])
    layers, twins = (list(quantized_layers(x).values()) for x in (net, twin))
    for layer, other in zip(layers, twins, strict=True):
        plain.state[other.weight] = copy.deepcopy(variant.state[layer.weight])
        layer.weight.grad = other.weight.grad = torch.randn_like(layer.weight)
    before = [layer.weight.clone() for layer in layers]
    variant.step()
    plain.step()
    assert variant.rates()["lr"] == pytest.approx(rates)
    for layer, other, start, u in zip(layers, twins, before, rates, strict=True):
        expected = start.double() + u / 0.01 * (other.weight.double() - start.double())
        torch.testing.assert_close(layer.weight.double(), expected, rtol=2e-5, atol=2e-6)


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


@pytest.mark.parametrize("base", SEVEN)
def test_zero_rate_freezes_the_weight_at_once_despite_momentum(base):
    """[T:C6] U multiplies the whole step, so a filled momentum buffer moves nothing."""
    net, optimizer = make(base=base, **SEVEN[base])
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
    assert optimizer.rates()["rate"] == optimizer.rates()["effective_step"] == [0.0, 0.0]


@pytest.mark.parametrize("base", SEVEN)
def test_running_rate_follows_a_slowly_falling_target(base):
    """[T:C10] K within 25 % of R in the middle of the run."""
    net, optimizer = make(
        base=base, width=60, target=0.05, steps=1500, lr=0.02, bits=3, momentum_k=0.95
    )
    centres = [layer.weight.clone() for layer in quantized_layers(net).values()]
    generator = torch.Generator().manual_seed(1)
    for _ in range(600):  # noise around a minimum, so that weights neither settle nor run away
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


def test_reported_rates_are_what_happened():
    """[T:C11] mean |w_q^t - w_q^{t-1}| of any step, k, and the names beside them."""
    net, optimizer = make(bits=3, lr=0.3)
    layers = quantized_layers(net)
    for _ in range(6):
        before = codes(net)
        values = [layer.quantized_weight().detach() for layer in layers.values()]
        for layer in layers.values():
            layer.weight.grad = torch.randn(layer.weight.shape)
        optimizer.step()
        rates = optimizer.rates()
        k = [(a != b).double().mean().item() for a, b in zip(codes(net), before, strict=True)]
        assert rates["names"] == list(layers) == ["0", "2"]
        assert rates["rate"] == pytest.approx(k)
        moved = [
            (layer.quantized_weight().detach() - value).abs().mean().item()
            for layer, value in zip(layers.values(), values, strict=True)
        ]
        assert rates["effective_step"] == pytest.approx(moved, abs=1e-7)
    assert rates["effective_step"][1] > 0.4 * k[1] > 0  # 1/4 a level; some weights jumped over one


def test_quantized_weights_are_stepped_and_their_scales_frozen():
    net, optimizer = make()
    layers = list(quantized_layers(net).values())
    assert optimizer.param_groups[-1]["params"] == [x.weight for x in layers]
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
        [
            {"params": weights[:1], "weight_decay": 0.5, "lr": 0.2, "role": "latent"},
            {"params": [*others, weights[1]], "lr": 0.3},
        ],
        model=net,
        lr=0.1,
        target=0.1,
        total_steps=5,
    )
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 0.5, 0]
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.2, 0.3]
    assert optimizer.param_groups[1]["role"] == "latent"
    assert optimizer.rates()["lr"] == pytest.approx([0.2, 0.3])


def test_base_decay_goes_on_where_the_rate_is_zero():
    """AdamWT: "adaptive" decays by U λ, which is 0 here; "base" by the scheduled lr λ."""
    after = {}
    for decay in ("adaptive", "base"):
        net, optimizer = make(base=optim.AdamW, target=0.0, eta=1e9, weight_decay=0.5, decay=decay)
        train(net, optimizer, 2)
        assert optimizer.rates()["lr"] == [0.0, 0.0]
        weight, start = net[2].weight, net[2].weight.detach().clone()
        optimizer.param_groups[-1]["lr"] = 0.1
        train(net, optimizer, 1)
        after[decay] = weight.detach() / start
        assert optimizer.param_groups[-1]["lr"] == 0.1
        assert optimizer.param_groups[-1]["weight_decay"] == 0.5
    assert torch.equal(after["adaptive"], torch.ones_like(after["adaptive"]))
    torch.testing.assert_close(after["base"], torch.full_like(after["base"], 1 - 0.1 * 0.5))


def test_a_scheduler_finds_the_learning_rates_it_left():
    net, optimizer = make()
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for t in range(5):
        train(net, optimizer, 1, start=t)
        scheduler.step()
    assert len({g["lr"] for g in optimizer.param_groups}) == 1


@pytest.mark.parametrize("at", [1, 7])
@pytest.mark.parametrize("base", SEVEN)
def test_resume_equals_the_straight_run(base, at, tmp_path):
    options = {"base": base, "lr": 0.02, "steps": 40, **SEVEN[base]}
    straight, first = make(**options)
    train(straight, first, 12)
    half, a = make(**options)
    train(half, a, at)
    torch.save({"model": half.state_dict(), "optimizer": a.state_dict()}, tmp_path / "x.pth")
    again, b = make(**options)
    state = torch.load(tmp_path / "x.pth", weights_only=True)
    again.load_state_dict(state["model"])
    b.load_state_dict(state["optimizer"])
    assert all(c.dtype == torch.int8 for c in b.state_dict()["transition"]["codes"])
    train(again, b, 12 - at, start=at)
    for p, q in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
    assert b.rates() == first.rates()


def test_a_state_of_before_the_first_step_is_resumed_as_such():
    net, optimizer = make()
    twin, other = make()
    other.load_state_dict(optimizer.state_dict())
    train(net, optimizer, 3)
    train(twin, other, 3)
    assert other.rates() == optimizer.rates()


def test_new_bits_start_the_codes_anew_and_count_no_transition():
    net, optimizer = make(bits=4)
    train(net, optimizer, 3)
    set_precision(net, Precision(2, 2))
    optimizer.target, optimizer.eta = 0.0, 0.0
    for group in optimizer.param_groups:
        group["ceiling"] = group["lr"]
    running = optimizer.rates()["running"]
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.rates()["running"] == pytest.approx([0.99 * k for k in running])


def test_hooks_run_once_a_step():
    optim.SGD([nn.Parameter(torch.ones(1))], lr=1)  # its step has hooks of its own from here on
    net, optimizer = make()
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    train(net, optimizer, 1)
    assert calls == ["pre", "post"]


def test_refusals():
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="belongs to a quantized layer"):
        SGDT(net.parameters(), model=net, lr=0.1, target=0.1, total_steps=5)
    with pytest.raises(ValueError, match="scope 'netwrk'"):
        make(scope="netwrk")
    with pytest.raises(ValueError, match="controller 's4'"):
        make(controller="s4")
    quantized, optimizer = make()
    with pytest.raises(ValueError, match="no transition rates"):
        optimizer.load_state_dict(optim.SGD(quantized.parameters(), lr=0.1).state_dict())
    set_precision(quantized, "FP")
    with pytest.raises(ValueError, match="layer 0 is at full precision"):
        optimizer.step()
