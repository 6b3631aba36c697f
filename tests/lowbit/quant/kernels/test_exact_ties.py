"""Values on a tie between two codes get the same code in every type and by every kernel."""

from fractions import Fraction

import pytest
import torch

from lowbit.quant import MinMax, use_fused_kernels
from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.kernels.affine_grid import symmetric_grid
from lowbit.quant.kernels.range_quantize import fake_quantize, fake_quantize_symmetric

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
CHANNELS = 2048


@pytest.fixture
def switch():
    before = torch_compiled._wanted
    yield use_fused_kernels
    use_fused_kernels(before)


def _weights(exponent: float = 0.0) -> torch.Tensor:
    """(C, 9), the largest magnitude of each channel once with either sign, at places 0 and 1."""
    torch.manual_seed(0)
    w = torch.randn(CHANNELS, 9) * 10.0**exponent
    w[:, 0] = w.abs().amax(1)
    w[:, 1] = -w[:, 0]
    return w


def _quantizer(bits: int, scheme: str = "symmetric", **options) -> MinMax:
    return MinMax(scheme=scheme, range="call", bits=bits, channels=CHANNELS, ndim=2, **options)


def _reference_code(w: float, peak: float, bits: int) -> int:
    """Round w n / (2 peak) half to even, of rational numbers, and clamp it."""
    code = round(Fraction(w) * (2**bits - 1) / (2 * Fraction(peak)))
    return max(-(2 ** (bits - 1)), min(code, 2 ** (bits - 1) - 1))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("exponent", [-40, -20, 0, 37])
def test_the_largest_weights_of_channels_have_the_outermost_codes(bits, exponent):
    w = _weights(exponent)
    codes = _quantizer(bits).codes(w)
    assert torch.equal(codes[:, :2], _quantizer(bits).codes(w.double())[:, :2])
    assert (codes[:, 0] == 2 ** (bits - 1) - 1).all() and (codes[:, 1] == -(2 ** (bits - 1))).all()


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_those_of_rational_numbers(bits):
    w = _weights()[:100]
    codes = MinMax(scheme="symmetric", range="call", bits=bits, channels=100, ndim=2).codes(w)
    expected = [[_reference_code(x, row[0], bits) for x in row] for row in w.tolist()]
    wrong = codes != torch.tensor(expected)
    assert not wrong[:, :2].any()
    assert wrong.sum() <= (bits == 16)  # a value may lie within half a unit of another tie


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("exponent", [-38, 0, 37])
def test_kernels_agree_bit_for_bit_on_peaks(bits, exponent, switch):
    w, upstream = _weights(exponent), torch.randn(CHANNELS, 9)
    w[5] = 0
    lo, hi, count = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (2**bits - 1) / 2
    grid = symmetric_grid(w.abs().amax(1, keepdim=True), count)

    def run(function):
        v = w.clone().requires_grad_()
        y = function(v)
        return y.detach(), torch.autograd.grad(y, v, upstream)[0]

    def fixed(v):  # the scale without its gradient, which is a sum
        return fake_quantize(v, grid.s, None, lo, hi, span=grid.span, count=count)

    switch(False)
    values, gradient = run(fixed)
    assert values.isfinite().all() and gradient.isfinite().all() and (values[5] == 0).all()
    assert torch.equal(run(lambda v: fake_quantize_symmetric(v, (CHANNELS, 1), bits))[0], values)
    assert (gradient[:, 0] == 0)[torch.arange(CHANNELS) != 5].all()  # a code above the highest one
    assert torch.equal(gradient[:, 1], upstream[:, 1])
    switch(None)
    if c_kernels.supports(w):
        assert all(map(torch.equal, run(fixed), (values, gradient)))
        attached = run(lambda v: fake_quantize_symmetric(v, (CHANNELS, 1), bits))[0]
        assert torch.equal(attached, values)


@pytest.mark.usefixtures("trusted_compiler")
def test_kernels_compiled_by_torch_agree_bit_for_bit_on_peaks(switch, monkeypatch):
    monkeypatch.setattr(c_kernels, "supports", lambda *tensors, scales=(): False)
    w, results = _weights(), []
    switch(True)
    if not torch_compiled.fused_kernels():
        pytest.skip("there is no C++ compiler")
    for wanted in (True, False):
        switch(wanted)
        results.append([fake_quantize_symmetric(w, (CHANNELS, 1), bits) for bits in BITS])
    assert all(map(torch.equal, *results))


@pytest.mark.usefixtures("trusted_compiler")
def test_a_network_compiled_whole_agrees_bit_for_bit_on_peaks(switch):
    switch(False)
    w = _weights().requires_grad_()
    function = torch.compile(lambda v: fake_quantize_symmetric(v, (CHANNELS, 1), 3), fullgraph=True)
    assert torch.equal(function(w), fake_quantize_symmetric(w, (CHANNELS, 1), 3))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_the_ends_of_a_symmetric_range_are_ties_of_the_zero_anchored_grid(bits, rounding):
    w = _weights()
    quantizer = _quantizer(bits, "zero_anchored", rounding=rounding)
    codes = quantizer.codes(w)
    half = 2 ** (bits - 1)
    ends = [half, -half] if rounding == "round" else [half - 1, -half]
    assert (codes[:, :2] == torch.tensor(ends)).all()
    assert torch.equal(codes[:, :2], quantizer.codes(w.double())[:, :2])
    assert torch.equal(quantizer(w), codes * quantizer.grid(w)[0])


@pytest.mark.parametrize("bits", BITS)
def test_the_middle_of_an_activation_range_has_the_even_code(bits):
    """(2^b - 1)/2 lies between 2^(b-1) - 1 and 2^(b-1): the latter is even from 2 bits on."""
    torch.manual_seed(0)
    for top in (*(2.0**e for e in range(-12, 13)), *(torch.rand(200) * 6).tolist()):
        x = torch.tensor([0.0, top / 2, top])
        for given in (x, x.double()):
            quantizer = MinMax(scheme="affine", range="call", bits=bits)
            assert quantizer.codes(given).tolist() == [0, 2 ** (bits - 1), 2**bits - 1]


@pytest.mark.parametrize("bits", BITS)
def test_the_zero_point_of_a_symmetric_range_is_the_even_one(bits):
    torch.manual_seed(0)
    for top in (torch.rand(200) * 6).tolist():
        x = torch.tensor([-top, 0.0, top])
        for given in (x, x.double()):
            quantizer = MinMax(scheme="affine", range="call", bits=bits)
            assert quantizer.codes(given)[1] == 2 ** (bits - 1)


def test_a_constant_channel_stays_exact():
    torch.manual_seed(0)
    for value in (*torch.randn(200).tolist(), 0.0):
        x = torch.full((5,), value)
        assert torch.equal(MinMax(scheme="affine", range="call", bits=4)(x), x)
        zero_anchored = MinMax(scheme="zero_anchored", range="call", bits=4)
        assert torch.equal(zero_anchored(x), x)
