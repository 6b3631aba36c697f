"""Codes in one buffer against each quantizer's own, and the counter of plain optimizers."""

import copy

import pytest
import torch
from torch import nn

from lowbit.quant import Precision, TransitionCounter, quantize, quantized_layers, use_fused_kernels
from lowbit.quant.transition import codes as module
from lowbit.quant.transition.codes import Codes

KINDS = {
    "interval": {"kind": "Interval"},
    "lsq": {"kind": "LSQ"},
    "lsq a channel": {"kind": "LSQ", "granularity": "channel"},
    "lsq+": {"kind": "LSQPlus"},
    "ewgs": {"kind": "EWGS"},
    "dorefa": {"kind": "DoReFa", "options": {"scheme": "modified"}},
    "sign": {"kind": "Sign"},
    "min-max": {
        "kind": "MinMax",
        "granularity": "channel",
        "options": {"scheme": "symmetric", "range": "call"},
    },
}


def network(weight, bits=4, **rules):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 7, 3, bias=False), nn.Conv2d(7, 40, 5, bias=False), nn.Linear(3, 3)
    )
    policy = {
        "name": "mine",
        "weight": weight,
        "activation": {"kind": "LSQ"},
        "first": "target",
        **rules,
    }
    return quantize(net, policy, Precision(bits, bits))


def jolt(net, generator, size=0.05):
    for layer in quantized_layers(net).values():
        noise = torch.randn(layer.weight.shape, generator=generator)
        layer.weight.data.add_(size * layer.weight.std() * noise)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_the_quantizers_codes(kind, bits, monkeypatch):
    monkeypatch.setattr(module, "CPU_BATCH", 2 * module.CHUNK)  # layers are cut and joined
    net = network(KINDS[kind], bits)
    layers = quantized_layers(net)
    codes, generator = Codes(layers), torch.Generator().manual_seed(1)
    codes.start()
    total = 0
    for _ in range(3):
        before = [x.w_quant.codes(x.weight.detach()).int() for x in layers.values()]
        jolt(net, generator)
        after = [x.w_quant.codes(x.weight.detach()).int() for x in layers.values()]
        codes.advance()
        pairs = list(zip(after, before, strict=True))
        assert codes.changed.tolist() == [(a != b).sum().item() for a, b in pairs]
        assert codes.jumps.tolist() == [(a - b).abs().sum().item() for a, b in pairs]
        for shaped, own in zip(codes.state_dict()["codes"], after, strict=True):
            assert torch.equal(shaped.int(), own)
        total += codes.changed.sum().item()
    assert total > 10


def test_layers_of_different_bits_are_read_in_one_go():
    net = network(KINDS["interval"], 3, rules=[["0", 8], ["1", "target"]])
    codes = Codes(quantized_layers(net))
    codes.start()
    assert [b.bounds for b in codes._batches] == [(-128, 127), (-4, 3)]
    for layer, shaped in zip(codes.layers, codes.state_dict()["codes"], strict=True):
        assert shaped.dtype == torch.int8
        assert torch.equal(shaped, layer.w_quant.codes(layer.weight.detach()))


def test_channels_last_weights_are_the_same_codes():
    net = network(KINDS["interval"])
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    states = []
    for model in (net, last):
        codes = Codes(quantized_layers(model))
        codes.start()
        states.append(codes.state_dict())
    assert states[1]["codes"][1].stride() != states[0]["codes"][1].stride()
    assert all(torch.equal(a, b) for a, b in zip(*(s["codes"] for s in states), strict=True))
    codes.load_state_dict(states[0])  # from another layout
    codes.advance()
    assert codes.changed.tolist() == [0, 0, 0]


def test_a_layer_at_full_precision_and_a_weight_with_gaps_are_refused():
    net = network(KINDS["interval"], 32)
    with pytest.raises(ValueError, match="layer 0 is at full precision"):
        TransitionCounter(quantized_layers(net))
    layer = quantized_layers(network(KINDS["interval"]))["0"]
    layer.weight = nn.Parameter(torch.randn(7, 3, 3, 6)[..., ::2])
    with pytest.raises(ValueError, match="weight of 0 is a view with gaps"):
        Codes({"0": layer})
    with pytest.raises(ValueError, match="no quantized layer"):
        Codes({})


@pytest.mark.parametrize("fused", [False, True])
def test_a_counter_records_a_plain_optimizer(fused):
    net = network(KINDS["lsq"], 3)
    use_fused_kernels(fused)
    try:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        layers = quantized_layers(net)
        counter = TransitionCounter(layers, momentum=0.5)
        optimizer.register_step_post_hook(counter)
        running = [0.0, 0.0, 0.0]
        for _ in range(5):
            before = [x.w_quant.codes(x.weight.detach()).int() for x in layers.values()]
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            after = [x.w_quant.codes(x.weight.detach()).int() for x in layers.values()]
            moved = [(a - b).abs().float() for a, b in zip(after, before, strict=True)]
            k = [(m > 0).float().mean().item() for m in moved]
            running = [0.5 * r + 0.5 * x for r, x in zip(running, k, strict=True)]
            rates = counter.rates()
            assert rates["rate"] == pytest.approx(k) and rates["running"] == pytest.approx(running)
            steps = [
                m.mean().item() * x.w_quant.scale.item()
                for m, x in zip(moved, layers.values(), strict=True)
            ]
            assert rates["effective_step"] == pytest.approx(steps)
        assert rates["names"] == ["0", "1", "2"] and min(running) > 0
    finally:
        use_fused_kernels(None)


def test_a_counter_goes_on_where_its_state_was_taken():
    net = network(KINDS["lsq"])
    generator = torch.Generator().manual_seed(5)
    first = TransitionCounter(quantized_layers(net))
    jolt(net, generator)
    first()
    state = copy.deepcopy(first.state_dict())
    jolt(net, generator)
    second = TransitionCounter(quantized_layers(net))
    second.load_state_dict(state)
    assert second.rates()["running"] == first.rates()["running"]
    first(), second()
    assert first.rates() == second.rates()
