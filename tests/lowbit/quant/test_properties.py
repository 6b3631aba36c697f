"""Properties of the quantizers on drawn tensors, ties and saturation among them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.quant import QUANTIZERS, MinMax
from lowbit.quant.kernels.learned_clip_quantize import ewgs, lsq_plus, pact
from lowbit.quant.kernels.learned_scale_quantize import interval, lsq
from lowbit.quant.kernels.range_quantize import fake_quantize

examples = settings(deadline=None, max_examples=25, derandomize=True)

seeds = st.integers(0, 2**31)
bit_widths = st.integers(1, 16)
low_bits = st.integers(1, 8)
exponents = st.integers(-6, 3)  # scales are powers of two, so that x (1/s) and x/s round alike
# Values in steps: halves are the ties, and most bit-widths saturate.
steps = st.one_of(
    st.integers(-80, 80).map(lambda k: k / 2),
    st.integers(-70_000, 70_000).map(float),
    st.floats(-300, 300, width=32),
)
values = st.lists(steps, min_size=1, max_size=40)
rows = st.lists(st.lists(steps, min_size=7, max_size=7), min_size=1, max_size=5)


def levels(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def upstream_for(y):
    return torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)


def outcome(function, *leaves, upstream=None):
    """Value and gradients."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = function(*leaves)
    g = upstream_for(y) if upstream is None else upstream
    return y.detach(), *torch.autograd.grad(y, leaves, g)


def same(ours, theirs, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(ours, theirs, **tolerance)


@examples
@given(values, bit_widths, exponents, st.booleans(), st.floats(0, 1))
def test_affine_equals_torch_per_tensor(ratios, bits, exponent, signed, place):
    lo, hi = levels(bits, signed)
    s, z = 2.0**exponent, lo + round(place * (hi - lo))
    v = torch.tensor(ratios) * s
    ours = outcome(
        lambda v: fake_quantize(v, torch.tensor([s]), torch.tensor([1.0 * z]), lo, hi), v
    )
    same(ours, outcome(lambda v: torch.fake_quantize_per_tensor_affine(v, s, z, lo, hi), v))


@examples
@given(rows, bit_widths, st.lists(exponents, min_size=5, max_size=5), st.booleans())
def test_affine_equals_torch_per_channel(ratios, bits, powers, signed):
    lo, hi = levels(bits, signed)
    s = torch.tensor([2.0**e for e in powers[: len(ratios)]])
    z = torch.arange(len(ratios)).clamp(max=hi).int()
    v = torch.tensor(ratios) * s[:, None]
    ours = outcome(lambda v: fake_quantize(v, s[:, None], z[:, None].float(), lo, hi), v)
    same(ours, outcome(lambda v: torch.fake_quantize_per_channel_affine(v, s, z, 0, lo, hi), v))


@examples
@given(rows, bit_widths, st.lists(exponents, min_size=5, max_size=5))
def test_symmetric_minmax_equals_torch_per_channel(ratios, bits, powers):
    """Each row holds its largest magnitude s n/2, so the scale found is the power of two."""
    lo, hi = levels(bits, signed=True)
    s = torch.tensor([2.0**e for e in powers[: len(ratios)]])
    top = hi + 0.5
    ratios = torch.tensor(ratios).clamp(-top, top)
    ratios[:, 0] = top * (1 - 2 * (torch.arange(len(ratios)) % 2))
    v = ratios * s[:, None]
    q = MinMax(bits=bits, scheme="symmetric", range="call", role="weight", channels=len(v), ndim=2)
    z = torch.zeros(len(v)).int()
    theirs = outcome(lambda v: torch.fake_quantize_per_channel_affine(v, s, z, 0, lo, hi), v)
    same(outcome(q, v), theirs)


@examples
@given(values, bit_widths, exponents, st.floats(0, 1))
def test_affine_minmax_equals_torch_per_tensor(ratios, bits, exponent, place):
    """The range of another batch, [-z s, (n - z) s], stays while these values come, clipped."""
    lo, hi = levels(bits, signed=False)
    s, z = 2.0**exponent, round(place * hi)
    q = MinMax(bits=bits)
    q.init_from(torch.tensor([-z * s, (hi - z) * s]))
    v = torch.tensor(ratios) * s
    same(
        outcome(q, v), outcome(lambda v: torch.fake_quantize_per_tensor_affine(v, s, z, lo, hi), v)
    )


def away_from(bounds, ratio):
    """Where torch's mask, on round(v/s), and LSQ's, on v/s, cannot differ."""
    lo, hi = bounds
    return ((ratio - lo).abs() > 0.5) & ((ratio - hi).abs() > 0.5)


@examples
@given(values, bit_widths, exponents, st.booleans())
def test_lsq_equals_torch_learnable_per_tensor(ratios, bits, exponent, signed):
    lo, hi = levels(bits, signed)
    s = torch.tensor([2.0**exponent])
    ratio = torch.tensor(ratios)
    g = upstream_for(ratio) * away_from((lo, hi), ratio)
    native = torch._fake_quantize_learnable_per_tensor_affine
    theirs = outcome(
        lambda v, s: native(v, s, torch.zeros(1), lo, hi, 1.0), ratio * s, s, upstream=g
    )
    ours = outcome(lambda v, s: lsq(v, s, -lo, hi), ratio * s, s, upstream=g)
    same(ours[:2], theirs[:2])
    same(ours[2], theirs[2], rtol=1e-5, atol=1e-3)


@examples
@given(rows, bit_widths, st.lists(exponents, min_size=5, max_size=5), st.booleans())
def test_lsq_equals_torch_learnable_per_channel(ratios, bits, powers, signed):
    lo, hi = levels(bits, signed)
    s = torch.tensor([2.0**e for e in powers[: len(ratios)]])
    ratio = torch.tensor(ratios)
    v, g = ratio * s[:, None], upstream_for(ratio) * away_from((lo, hi), ratio)
    native = torch._fake_quantize_learnable_per_channel_affine
    zeros = torch.zeros(len(s))
    theirs = outcome(lambda v, s: native(v, s, zeros, 0, lo, hi, 1.0), v, s, upstream=g)
    ours = outcome(lambda v, s: lsq(v, s[:, None], -lo, hi), v, s, upstream=g)
    same(ours[:2], theirs[:2])
    same(ours[2], theirs[2], rtol=1e-5, atol=1e-3)


FIXED = {  # quantizers of activations whose state no forward pass moves
    "MinMax affine": ("MinMax", {}),
    "MinMax zero": ("MinMax", {"scheme": "zero_anchored"}),
    "MinMax min": ("MinMax", {"scheme": "min_anchored"}),
    "LSQ": ("LSQ", {}),
    "LSQPlus": ("LSQPlus", {}),
    "PACT": ("PACT", {}),
    "DoReFa": ("DoReFa", {}),
    "Interval": ("Interval", {}),
    "EWGS": ("EWGS", {}),
    "Sign": ("Sign", {}),
}
RESCALES = ("Interval", "EWGS")  # their output has another scale than their input
activations = st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=60)


def fitted(name, bits, x):
    kind, options = FIXED[name]
    q = QUANTIZERS[kind](bits=bits, **options)
    q.init_from(x)
    return q.eval()


@pytest.mark.parametrize("name", [name for name in FIXED if name not in RESCALES])
@examples
@given(activations, bit_widths)
def test_quantizing_twice_is_quantizing_once(name, x, bits):
    x = torch.tensor(x)
    q = fitted(name, bits, x / 2)  # half of the values may lie beyond the range
    once = q(x)
    same(q(once), once)


@pytest.mark.parametrize("name", FIXED)
@examples
@given(activations, bit_widths)
def test_codes_and_values_never_fall_where_the_input_rises(name, x, bits):
    x = torch.tensor(x).sort().values
    q = fitted(name, bits, x / 2)
    assert (q.codes(x).int().diff() >= 0).all()
    assert (q(x).diff() >= 0).all()


@pytest.mark.parametrize("case", [*FIXED, "original", "modified", "centered", "stretched"])
@examples
@given(seeds, low_bits)
def test_every_code_has_one_value(case, seed, bits):
    """To the last bit, so that counting distinct values counts levels; DoReFa's weights by scheme."""
    x = torch.randn(3000, generator=torch.Generator().manual_seed(seed))
    if case in FIXED:
        q = fitted(case, bits, x)
    else:
        q = QUANTIZERS["DoReFa"](bits=bits, role="weight", scheme=case)
    assert q(x).unique().numel() == q.codes(x).unique().numel()


@pytest.mark.parametrize("scheme", ["symmetric", "affine", "zero_anchored", "min_anchored"])
@examples
@given(activations, bit_widths, st.sampled_from([None, 3]))
def test_minmax_keeps_the_gradient_of_its_lowest_and_highest_codes(scheme, x, bits, channels):
    """Only a value that rounds beyond the levels has none: symmetric's ±max may be such a tie."""
    x = torch.tensor(x)
    x = x if channels is None else torch.stack([x, 0.5 * x, -x])
    q = MinMax(bits=bits, scheme=scheme, range="call", channels=channels, ndim=x.dim())
    codes = q.codes(x).int()
    _, dx = outcome(q, x, upstream=torch.ones_like(x))
    low, high = (codes.amin(), codes.amax()) if "anchored" in scheme else q.levels()
    tie = x.abs() == (x.abs().amax() if channels is None else x.abs().amax(1, keepdim=True))
    kept = ((codes == low) | (codes == high)) & ~(tie if scheme == "symmetric" else False)
    assert (dx[kept] == 1).all()


# Gradients against finite differences, in float64. Where rounding has none of its own, of the
# straight-through surrogate: the same formula with the rounding residual held fixed.


def numeric(function, leaf, upstream, eps=1e-6):
    """Central differences of sum(upstream · function)."""
    out = torch.empty_like(leaf)
    for i in range(leaf.numel()):
        shift = torch.zeros_like(leaf)
        shift.view(-1)[i] = eps
        difference = function(leaf + shift) - function(leaf - shift)
        out.view(-1)[i] = (difference * upstream).sum() / (2 * eps)
    return out


def surrogate(ratio, lo, hi):
    """clip(ratio) plus the residual that rounding adds here, fixed; for any ratio near this one."""
    clipped = ratio.clamp(lo, hi)
    residual = clipped.round() - clipped
    return lambda other: other.clamp(lo, hi) + residual


def points(seed, low, high, *kinks):
    """Numbers in [low, high] (in steps) that differences cannot carry over a kink."""
    x = torch.empty(60, dtype=torch.float64)
    x.uniform_(low, high, generator=torch.Generator().manual_seed(seed))
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-3]
    return x


@examples
@given(seeds, low_bits, st.booleans(), st.floats(0.05, 3))
def test_lsq_gradients_are_those_of_the_surrogate(seed, bits, signed, step):
    lo, hi = levels(bits, signed)
    s = torch.tensor([step], dtype=torch.float64)
    v = points(seed, 1.5 * lo - 1, 1.5 * hi + 1, lo, hi) * s
    f = surrogate(v / s, lo, hi)
    _, dv, ds = outcome(lambda v, s: lsq(v, s, -lo, hi), v, s)
    g = upstream_for(v)
    same(dv, numeric(lambda v: s * f(v / s), v, g), rtol=1e-5, atol=1e-5)
    same(ds, numeric(lambda s: s * f(v / s), s, g), rtol=1e-5, atol=1e-5)


@examples
@given(seeds, low_bits, st.floats(0.05, 3), st.floats(-2, 2))
def test_lsq_plus_gradients_are_those_of_the_surrogate(seed, bits, step, offset):
    n = 2**bits - 1
    s, beta = (torch.tensor([t], dtype=torch.float64) for t in (step, offset))
    v = points(seed, -0.5 * n - 1, 1.5 * n + 1, 0, n) * s + beta
    f = surrogate((v - beta) / s, 0, n)
    _, dv, ds, dbeta = outcome(lambda v, s, b: lsq_plus(v, s, b, n, 1.0), v, s, beta)
    g = upstream_for(v)
    near = {"rtol": 1e-5, "atol": 1e-5}
    same(dv, numeric(lambda v: s * f((v - beta) / s) + beta, v, g), **near)
    same(ds, numeric(lambda s: s * f((v - beta) / s) + beta, s, g), **near)
    same(dbeta, numeric(lambda b: s * f((v - b) / s) + b, beta, g), **near)


@examples
@given(seeds, low_bits, st.booleans(), st.floats(0.05, 3))
def test_interval_gradients_are_those_of_the_surrogate(seed, bits, signed, width):
    lo, hi = levels(bits, signed)
    gamma = -lo if signed else hi + 1
    s = torch.tensor([width], dtype=torch.float64)
    x = points(seed, 1.5 * lo - 1, 1.5 * hi + 1, lo, hi) * s / gamma
    f = surrogate(gamma * x / s, lo, hi)
    _, dx, ds = outcome(lambda x, s: interval(x, s, lo, hi, gamma), x, s)
    g = upstream_for(x)
    same(dx, numeric(lambda x: f(gamma * x / s) / gamma, x, g), rtol=1e-5, atol=1e-5)
    same(ds, numeric(lambda s: f(gamma * x / s) / gamma, s, g), rtol=1e-5, atol=1e-4)


@examples
@given(seeds, low_bits, st.floats(0.05, 3))
def test_pact_gradients_are_those_of_its_clip(seed, bits, top):
    alpha = torch.tensor([top], dtype=torch.float64)
    x = points(seed, -0.5, 1.5, 0, 1) * alpha
    _, dx, dalpha = outcome(lambda x, a: pact(x, a, 2**bits - 1), x, alpha)
    g = upstream_for(x)

    def clip(x, alpha):
        return torch.minimum(x.clamp(min=0), alpha)

    same(dx, numeric(lambda x: clip(x, alpha), x, g), rtol=1e-6, atol=1e-6)
    same(dalpha, numeric(lambda a: clip(x, a), alpha, g), rtol=1e-6, atol=1e-6)


@examples
@given(seeds, st.booleans())
def test_dorefa_unit_passes_gradcheck(seed, per_channel):
    """The maximum counts as a constant, so the largest weight is none of the leaves."""
    place = {"channels": 3, "ndim": 2} if per_channel else {}
    q = QUANTIZERS["DoReFa"](bits=4, role="weight", **place)
    w = points(seed, -1.5, 1.5)[:9].reshape(3, 3).requires_grad_()
    largest = torch.full((3, 1), 2.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: q._unit(torch.cat([w, largest], 1))[:, :3], w)


@examples
@given(seeds, low_bits, st.floats(-1, 0), st.floats(0.2, 2))
def test_ewgs_without_correction_has_the_gradients_of_its_clip(seed, bits, lower, width):
    lower, width = (torch.tensor([t], dtype=torch.float64) for t in (lower, width))
    x = points(seed, -0.5, 1.5, 0, 1) * width + lower
    _, dx, dl, dw = outcome(lambda *a: ewgs(*a, 2**bits - 1, 0.0), x, lower, width)
    g = upstream_for(x)

    def clip(x, lower, width):
        return ((x - lower) / width).clamp(0, 1)

    same(dx, numeric(lambda x: clip(x, lower, width), x, g), rtol=1e-5, atol=1e-5)
    same(dl, numeric(lambda t: clip(x, t, width), lower, g), rtol=1e-5, atol=1e-5)
    same(dw, numeric(lambda t: clip(x, lower, t), width, g), rtol=1e-5, atol=1e-5)
