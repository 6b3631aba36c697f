"""Values and gradients of the primitives, against closed forms and torch's own operators."""

import math

import pytest
import torch

from lowbit.quant.kernels.learned_scale_quantize import interval, lsq
from lowbit.quant.kernels.range_quantize import (
    fake_quantize,
    fake_quantize_anchored,
    peaks,
    place_of_peak,
)

BITS = [1, 2, 3, 4, 5, 8, 12, 16]


def gradients(function, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out.detach(), torch.autograd.grad(out, leaves, upstream), upstream


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_affine_equals_torch_fake_quantize_per_tensor(bits, signed):
    lo, hi = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    s, z = 0.25, 0 if signed else 3  # a power of two: x*(1/s) and x/s round alike
    v = torch.randn(4000) * (hi - lo) * s
    ours, (dv,), upstream = gradients(
        lambda v: fake_quantize(v, torch.tensor([s]), torch.tensor([float(z)]), lo, hi), v
    )
    leaf = v.clone().requires_grad_()
    theirs = torch.fake_quantize_per_tensor_affine(leaf, s, z, lo, hi)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)
    torch.testing.assert_close(dv, torch.autograd.grad(theirs, leaf, upstream)[0], rtol=0, atol=0)


def test_affine_equals_torch_fake_quantize_per_channel():
    w = torch.randn(5, 3, 3, 3)
    s = torch.tensor([0.5, 0.25, 0.125, 1.0, 2.0])
    ours, (dw,), upstream = gradients(
        lambda w: fake_quantize(w, s.view(5, 1, 1, 1), None, -8, 7), w
    )
    leaf = w.clone().requires_grad_()
    theirs = torch.fake_quantize_per_channel_affine(leaf, s, torch.zeros(5), 0, -8, 7)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)
    torch.testing.assert_close(dw, torch.autograd.grad(theirs, leaf, upstream)[0], rtol=0, atol=0)


@pytest.mark.parametrize("bits", BITS)
def test_gradient_passes_at_the_lowest_and_highest_level(bits):
    # torch.clamp has none at its bounds since 2.14
    lo, hi = 0, 2**bits - 1
    v = torch.tensor([0.0, 0.4, hi - 0.4, float(hi), hi + 0.6, -0.6])
    _, (dv,), upstream = gradients(lambda v: fake_quantize(v, torch.ones(1), None, lo, hi), v)
    expected = torch.tensor([1, 1, 1, 1, 0, 0]) * upstream
    torch.testing.assert_close(dv, expected, rtol=0, atol=0)


def test_affine_scale_gradient_equals_autograd_through_straight_through_rounding():
    v = (torch.randn(300, dtype=torch.float64) * 2).reshape(3, 100)
    s = torch.tensor([[0.3], [0.5], [0.9]], dtype=torch.float64)
    _, (dv, ds), upstream = gradients(lambda v, s: fake_quantize(v, s, None, -2, 1), v, s)

    def reference(v, s):  # round and clamp written with detach, in float64
        ratio = v / s
        q = ratio + (ratio.round() - ratio).detach()
        inside = ((q >= -2) & (q <= 1)).detach()
        return torch.where(inside, q, q.detach().clamp(-2, 1)) * s

    leaves = [v.clone().requires_grad_(), s.clone().requires_grad_()]
    expected = torch.autograd.grad(reference(*leaves), leaves, upstream)
    torch.testing.assert_close((dv, ds), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("q", BITS)
def test_cq_rounding_error_is_bounded(q, floor):
    """[T:B1] round: |A_q - A| <= S/2; floor: 0 <= A - A_q < S; [T:B2b] floor is biased by S/2."""
    a = torch.randn(4000, dtype=torch.float64)
    s = ((a.max() - a.min()) / (2**q - 1)).reshape(1)
    error = a - fake_quantize_anchored(a, s, floor=floor)
    if floor:
        assert error.min() >= -1e-12 and error.max() < s + 1e-12
        if q >= 3:  # enough steps for the error to be uniform
            assert error.mean().item() == pytest.approx(s.item() / 2, rel=0.1)
    else:
        assert error.abs().max() <= s / 2 + 1e-12


def test_cq_gradient_is_one_everywhere():
    a = torch.randn(50)
    s = ((a.max() - a.min()) / 3).reshape(1)
    _, (da,), upstream = gradients(lambda a: fake_quantize_anchored(a, s), a)
    torch.testing.assert_close(da, upstream, rtol=0, atol=0)


def test_cq_symmetric_range_ends_in_rounding_ties():
    """[T:B2] range [-c, c]: c/S = (2^q - 1)/2 is a tie, so codes span 2^q - 1 ± 1 steps."""
    a = torch.tensor([-1.5, -0.2, 0.3, 1.5], dtype=torch.float64)  # q=2: S = 1
    y = fake_quantize_anchored(a, torch.ones(1, dtype=torch.float64))
    assert y.tolist() == [-2.0, 0.0, 0.0, 2.0]  # five levels apart, not four
    positive = torch.tensor([0.0, 0.4, 3.0])  # one-sided: no ties, at most 2^q levels
    assert fake_quantize_anchored(positive, torch.ones(1)).unique().numel() <= 4


def test_min_anchored_grid_starts_at_the_minimum():
    a = torch.tensor([1.0, 1.4, 1.6, 4.0])
    y = fake_quantize_anchored(a, torch.ones(1), torch.tensor([1.0]))
    assert y.tolist() == [1.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("v", "value", "ds", "dv"),
    [(0.4, 0, -0.4, 1), (0.6, 1, 0.4, 1), (3.4, 3, 3, 0), (-9, -4, -4, 0), (9, 3, 3, 0)],
)
def test_lsq_hand_worked_points(v, value, ds, dv):
    """[T:E1-E3] s=1, Q_N=4, Q_P=3 (SPEC E)."""
    out, (grad_v, grad_s), upstream = gradients(
        lambda v, s: lsq(v, s, 4, 3), torch.tensor([float(v)]), torch.ones(1)
    )
    assert out.item() == value
    assert grad_v.item() == pytest.approx(dv * upstream.item())
    assert grad_s.item() == pytest.approx(ds * upstream.item(), rel=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_lsq_equals_the_paper_in_float64(bits, signed):
    q_n, q_p = (2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    v = torch.randn(2000, dtype=torch.float64)
    s = torch.tensor([2.5 / 2**bits], dtype=torch.float64)
    g = 1 / math.sqrt(v.numel() * q_p)
    out, (dv, ds), upstream = gradients(lambda v, s: lsq(v, s, q_n, q_p, g), v, s)
    ratio = v / s
    torch.testing.assert_close(out, ratio.clamp(-q_n, q_p).round() * s)
    slope = torch.where(  # LSQ Eq. 3
        ratio <= -q_n, -q_n, torch.where(ratio >= q_p, q_p, ratio.round() - ratio)
    )
    torch.testing.assert_close(ds, (slope * upstream).sum().reshape(1) * g)
    torch.testing.assert_close(dv, upstream * ((ratio > -q_n) & (ratio < q_p)))


def test_lsq_values_equal_torch_learnable_fake_quantize_at_eight_bits():
    # Its gradient masks on the rounded value and is LSQ's only where that makes no difference.
    v, s = torch.randn(3000), torch.tensor([0.0625])
    theirs = torch._fake_quantize_learnable_per_tensor_affine(v, s, torch.zeros(1), -128, 127, 1.0)
    torch.testing.assert_close(lsq(v, s, 128, 127), theirs, rtol=0, atol=0)


def test_interval_gradients_are_the_closed_form():
    """[T:C1] inside ∂x_q/∂x = 1/s, ∂x_q/∂s = -x/s²; both 0 outside."""
    x = torch.randn(500, dtype=torch.float64)
    s = torch.tensor([0.8], dtype=torch.float64)
    for alpha, beta, gamma in ((-2, 1, 2), (-8, 7, 8), (0, 15, 16)):
        _, (dx, ds), upstream = gradients(
            lambda x, s, c=(alpha, beta, gamma): interval(x, s, *c), x, s
        )
        scaled = gamma * x / s
        inside = (scaled >= alpha) & (scaled <= beta)
        torch.testing.assert_close(dx, upstream * inside / s)
        torch.testing.assert_close(ds, (upstream * inside * -x / s**2).sum().reshape(1))


def test_interval_levels_and_transition_points():
    """[T:C2-C4] b=2: levels {-1,-.5,0,.5}; s=.3 puts the transitions at -.225, -.075, .075."""
    s = torch.tensor([0.3], dtype=torch.float64)
    x = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    y = interval(x, s, -2, 1, 2)
    assert y.unique().tolist() == [-1.0, -0.5, 0.0, 0.5]
    crossings = x[1:][y[1:] != y[:-1]]
    torch.testing.assert_close(
        crossings, torch.tensor([-0.225, -0.075, 0.075], dtype=torch.float64), rtol=0, atol=2e-4
    )


@pytest.mark.parametrize("bits", BITS)
def test_interval_output_range_is_fixed(bits):
    half = 2 ** (bits - 1)
    x = torch.randn(1000) * 10
    signed = interval(x, torch.ones(1), -half, half - 1, half)
    assert signed.min() == -1 and signed.max() <= 1 - 1 / half
    unsigned = interval(x, torch.ones(1), 0, 2 * half - 1, 2 * half)
    assert unsigned.min() == 0 and unsigned.max() == 1 - 1 / (2 * half)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_quantized_in_float32(dtype):
    v = (torch.rand(4096) * 255).to(dtype)
    s = torch.full((1,), 1.0)
    for out in (fake_quantize(v, s, None, 0, 255), lsq(v, s, 0, 255)):
        assert out.dtype == dtype
        torch.testing.assert_close(out, v.float().round().clamp(0, 255).to(dtype), rtol=0, atol=0)
    leaf = v.clone().requires_grad_()
    interval(leaf, s * 255, 0, 255, 256).sum().backward()
    assert leaf.grad.dtype == dtype


@pytest.mark.parametrize("function", ["fake_quantize", "lsq", "interval"])
def test_keeps_only_the_input_for_the_backward_pass(function):
    v = torch.rand(1 << 12, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        {
            "fake_quantize": lambda: fake_quantize(v, torch.ones(1), None, 0, 15),
            "lsq": lambda: lsq(v, torch.ones(1, requires_grad=True), 0, 15),
            "interval": lambda: interval(v, torch.ones(1, requires_grad=True), 0, 15, 16),
        }[function]()
    assert sum(n for n in kept if n > 1) == v.numel()


@pytest.mark.parametrize("width", [5, 27, 64, 128, 576])
def test_peaks_and_their_place_are_those_of_the_magnitudes(width):
    rows = torch.randint(-20, 20, (9, width)).float()  # with ties
    peak = peaks(rows)
    assert torch.equal(peak.amax(1), rows.abs().amax(1))
    assert torch.equal(place_of_peak(rows, peak).squeeze(1), rows.abs().argmax(1))
