"""Quantizers as integer kernels see them, against what the quantizers themselves return."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.quant import all_quantizers, calibrate, quantize
from lowbit.quant.integer.integer_grid import (
    NotAnIntegerGridError,
    activation_grid,
    reads_batches,
    weight_codes,
)
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.quantizers.lsq import LSQ, LSQPlus
from lowbit.quant.quantizers.minmax import MinMax

INTEGERS = ("coquant", "dorefa", "ewgs", "interval", "lsq", "pact", "ssql", "tr")
PRECISIONS = ("8w8a", "5w5a", "4w4a", "3w3a", "2w2a")


def layers(policy, precision):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
    quantize(net, {"base": policy, "first": "fp"}, precision)
    calibrate(net, [torch.randn(8, 4, 12, 12)])
    return net.eval()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("policy", INTEGERS)
def test_integers_of_activations_give_what_the_quantizer_gives(policy, precision):
    net = layers(policy, precision)
    found = [q for q in all_quantizers(net) if q.role == "activation"]
    assert found
    for quantizer in found:
        grid = activation_grid(quantizer)
        places = np.random.default_rng(0).uniform(grid.low - 5, grid.high + 5, 4000)
        places = places[np.abs(places % 1 - 0.5) > 1e-3]  # ties may round either way
        x = torch.from_numpy((places - grid.zero_in) * grid.scale_in).float()
        q = np.clip(
            np.round(x.numpy() / np.float32(grid.scale_in)) + grid.zero_in, grid.low, grid.high
        )
        expected = quantizer(x[:, None])[:, 0].detach().numpy()
        np.testing.assert_allclose((q - grid.zero) * grid.scale, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "policy", (*INTEGERS, "any-precision", "cq", "interval-binary", "reactnet")
)
def test_integers_of_weights_give_what_the_quantizer_gives(policy, precision):
    layer = layers(policy, precision)[2]
    doubled = policy in ("any-precision", "dorefa", "ewgs", "pact")  # levels lie at half steps
    if precision == "8w8a" and (
        doubled or policy == "cq"
    ):  # whose codes count from zero, not from min
        with pytest.raises(NotAnIntegerGridError, match="do not fit int8"):
            weight_codes(layer)
        return
    found = weight_codes(layer)
    values = found.codes * found.scale.reshape(-1, 1, 1, 1)
    expected = layer.quantized_weight().detach().numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
    half = 2 ** (found.bits - 1)
    codes = found.codes.int()
    assert codes.min() >= -half and codes.max() < half
    assert found.bits <= layer.w_quant.bits + doubled or layer.w_quant.bits == 1 or policy == "cq"


def observed(quantizer, x):
    quantizer.init_from(x)
    return quantizer.eval()


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        (MinMax(bits=4, scheme="affine", range="call"), "from each batch"),
        (MinMax(bits=4, scheme="zero_anchored"), "rounding and clipping"),
        (MinMax(bits=9), "9 bits"),
        (LSQPlus(bits=4), "no whole number of steps"),
    ],
)
def test_what_has_no_integer_grid_is_refused_with_the_reason(quantizer, reason):
    x = torch.linspace(-1.03, 2, 101)[:, None]
    with pytest.raises(NotAnIntegerGridError, match=reason):
        activation_grid(observed(quantizer, x))


def test_a_range_that_leaves_zero_out_is_refused():
    quantizer = observed(MinMax(bits=8), torch.linspace(1, 2, 50)[:, None])
    with pytest.raises(NotAnIntegerGridError, match=r"zero at -255 do not fit uint8"):
        activation_grid(quantizer)


def test_steps_of_any_magnitude_have_a_grid_or_none():
    quantizer = MinMax(bits=8)
    for magnitude in (1e-20, 1.0, 1e18):  # beyond 2^53, 1 and 0 are the same number of steps
        quantizer.q_min.fill_(-3 * magnitude)
        quantizer.q_max.fill_(magnitude)
        quantizer.follow_buffers()
        grid = activation_grid(quantizer)
        assert grid.scale == pytest.approx(4 * magnitude / 255)
        assert grid.scale_in == pytest.approx(grid.scale) and grid.zero == grid.zero_in == 191
    infinite = LSQ(bits=4)
    infinite.q_scale.data.fill_(math.inf)
    with pytest.raises(NotAnIntegerGridError, match="step inf"):
        activation_grid(infinite)


def test_grids_that_depend_on_the_batch_are_told():
    kept, live = MinMax(bits=4), MinMax(bits=4, range="call")
    kept.init_from(torch.randn(100))
    assert reads_batches(live) and not reads_batches(kept)
    assert reads_batches(Quantizer(bits=4))  # it states no grid
