"""Distances of latent weights to transition points, found by moving each weight until its code turns."""

import pytest
import torch
from torch import nn

from lowbit.quant import Precision, latent_statistics, quantize, quantized_layers

KINDS = {
    "interval": {"kind": "Interval"},
    "lsq": {"kind": "LSQ"},
    "ewgs": {"kind": "EWGS"},
    "lsq+": {"kind": "LSQPlus"},
    "min-max": {
        "kind": "MinMax",
        "granularity": "channel",
        "options": {"scheme": "symmetric", "range": "call"},
    },
    "dorefa": {"kind": "DoReFa"},
    "modified dorefa": {"kind": "DoReFa", "options": {"scheme": "modified"}},
    "sign": {"kind": "Sign"},
}


def layer_of(kind, bits):
    torch.manual_seed(0)
    policy = {
        "name": "mine",
        "weight": KINDS[kind],
        "activation": {"kind": "LSQ"},
        "first": "target",
    }
    net = quantize(nn.Sequential(nn.Linear(60, 20)), policy, Precision(bits, bits))
    return net, quantized_layers(net)["0"]


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_turn_where_the_points_are(kind, bits):
    """In units of δ, the code of a weight is the number of points below it, counted from the first."""
    _, layer = layer_of(kind, bits)
    weight = layer.weight.detach()
    weight = weight + 2 * weight.std() * torch.randn(weight.shape)  # some beyond the last level
    x, first, last = layer.w_quant.transition_points(weight)
    below = (x.flatten()[:, None] > torch.arange(first, last + 0.5)).sum(1)
    codes = layer.w_quant.codes(weight).flatten().long()
    lowest = layer.w_quant.levels()[0]
    unit = 2 if kind == "sign" else 1
    away = (x.flatten() - (x.flatten() - first).round() - first).abs() > 1e-4
    assert torch.equal(((codes - lowest) // unit)[away], below[away])
    assert away.float().mean() > 0.97 and len(codes.unique()) == (2 if kind == "sign" else 2**bits)


def test_statistics_of_weights_placed_by_hand():
    net, layer = layer_of("interval", 2)  # codes -2..1, points -1.5, -0.5, 0.5
    delta = layer.w_quant.scale.item() / 2
    placed = torch.tensor([-2.5, -1.38, -0.88, -0.51, 0.08, 0.45, 0.72, 3.0])
    layer.weight = nn.Parameter(placed.reshape(2, 4) * delta)
    found = latent_statistics(net, bins=5)["0"]
    distances = [1.0, 0.12, 0.38, 0.01, 0.42, 0.05, 0.22, 2.5]
    assert found["mean_distance"] == pytest.approx(sum(distances) / 8, rel=1e-5)
    assert found["range"] == [-2.5, 1.5]
    shares = torch.tensor(distances).clamp(max=0.5).histc(5, 0, 0.5) / 8
    assert found["distance"] == pytest.approx(shares.tolist())
    # signed distance from the level: -.5, -.38, .12, .49, .08, .45, -.28, .5 (clipped at both ends)
    assert found["position"] == pytest.approx([2 / 8, 1 / 8, 1 / 8, 1 / 8, 3 / 8])
    assert sum(found["weights"]) == pytest.approx(1)


def test_layers_at_full_precision_are_left_out():
    net, _ = layer_of("interval", 32)
    assert latent_statistics(net) == {}
