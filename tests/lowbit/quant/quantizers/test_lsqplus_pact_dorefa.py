"""LSQ+, PACT, DoReFa, EWGS and Sign against their papers' equations (SPEC E and D.4)."""

import math

import pytest
import torch

from lowbit.quant import QUANTIZERS, get_policy
from lowbit.quant.kernels.learned_clip_quantize import ewgs, lsq_plus, pact, sign

DoReFa, EWGS, LSQPlus, PACT, Sign = (
    QUANTIZERS[name] for name in ("DoReFa", "EWGS", "LSQPlus", "PACT", "Sign")
)


def gradients(function, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out.detach(), torch.autograd.grad(out, leaves, upstream), upstream


def test_lsq_plus_gradients():
    v = torch.randn(400, dtype=torch.float64)
    s, beta = (torch.tensor([x], dtype=torch.float64) for x in (0.3, -0.5))
    out, (dv, ds, db), g = gradients(lambda *a: lsq_plus(*a, 7, 0.1), v, s, beta)
    ratio = (v - beta) / s
    inside = (ratio > 0) & (ratio < 7)
    torch.testing.assert_close(out, ratio.clamp(0, 7).round() * s + beta)
    torch.testing.assert_close(dv, g * inside)
    torch.testing.assert_close(db, 0.1 * (g * ~inside).sum().reshape(1))
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(0, 7).round())
    torch.testing.assert_close(ds, 0.1 * (g * slope).sum().reshape(1))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_lsq_plus_learns_the_step_and_the_offset_themselves(bits):
    """Through the module, in float64: g = 1/sqrt(N Q_P), N the features of one sample."""
    x = torch.randn(6, 40, dtype=torch.float64)
    q = LSQPlus(bits=bits).double()
    q.init_from(x)
    with torch.no_grad():
        q.q_scale.mul_(0.7)  # clips some
    g = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
    q(x).backward(g)
    s, beta, n = q.q_scale.detach(), q.q_offset.detach(), 2**bits - 1
    ratio = (x - beta) / s
    inside = (ratio > 0) & (ratio < n)
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(0, n).round())
    factor = (40 * n) ** -0.5
    torch.testing.assert_close(q.q_scale.grad, factor * (g * slope).sum().reshape(1))
    torch.testing.assert_close(q.q_offset.grad, factor * (g * ~inside).sum().reshape(1))


def test_lsq_plus_moves_its_steps_as_fast_as_lsq():
    """Relative movement under the same SGD, on data that both quantize alike."""
    x = torch.randn(64, 100).relu()
    for bits in (2, 4, 8):
        moved = []
        for kind in (QUANTIZERS["LSQ"], LSQPlus):
            q = kind(bits=bits)
            q.init_from(x)
            with torch.no_grad():
                q.q_scale.fill_(4 / (2**bits - 1))  # the same for both: too wide
                if kind is LSQPlus:
                    q.q_offset.zero_()
            start = q.scale.item()
            optimizer = torch.optim.SGD([q.q_scale], lr=0.01)
            for _ in range(5):
                optimizer.zero_grad()
                (64 * (q(x) - x).square().mean()).backward()
                optimizer.step()
            moved.append(q.scale.item() / start - 1)
        assert abs(moved[0]) > 1e-4
        assert moved[1] == pytest.approx(moved[0], rel=1e-3)


SPREADS = {
    "relu": lambda x: x.relu(),
    "silu": lambda x: torch.nn.functional.silu(2 * x),
    "long tail": lambda x: x.pow(3),
    "all positive": lambda x: 0.4 + 0.2 * x.sigmoid(),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_lsq_plus_starts_with_the_least_squared_error(spread):
    """Against trying every pair of ends on a grid, on the data themselves."""
    x = SPREADS[spread](torch.randn(3000))
    low, high = x.min(), x.max()
    cuts = torch.linspace(0, 1, 41)
    q = LSQPlus(bits=32)
    q.init_from(x)

    def error(value):
        return (value - x).square().mean(-1)

    for bits in (1, 2, 4):
        n = 2**bits - 1
        best = math.inf
        for a in cuts[:-1]:
            lower = low + a * (high - low)
            s = ((low + cuts[cuts > a] * (high - low) - lower) / n)[:, None]
            best = min(best, error(((x - lower) / s).round().clamp(0, n) * s + lower).min().item())
        q.bits = bits
        assert error(q(x)).item() <= 1.02 * best
        assert error(q(x)).item() < error(
            ((x - low) / (high - low) * n).round() / n * (high - low) + low
        )
    for levels in (255, 65535):  # as good as the observed range, at least
        q.bits = levels.bit_length()
        s = (high - low) / levels
        assert error(q(x)) <= 1.02 * error(((x - low) / s).round() * s + low)


def test_lsq_plus_starts_weights_as_published():
    w = torch.randn(10_000)
    q = LSQPlus(bits=4, role="weight")
    q.init_from(w)
    expected = max(abs(w.mean() - 3 * w.std()), abs(w.mean() + 3 * w.std())) / 8
    assert q.q_scale.item() == pytest.approx(expected.item(), rel=1e-3)


def test_lsq_plus_keeps_a_constant():
    q = LSQPlus(bits=2)
    q.init_from(torch.full((4, 5), -2.5))
    for bits in (2, 8):
        q.bits = bits
        assert q(torch.full((4, 5), -2.5)).unique().tolist() == [-2.5]


def test_pact_gradient_of_alpha_counts_what_is_clipped():
    """[T:E4] ∂y/∂α = 1[x >= α], without the rounding residuals inside."""
    x = torch.randn(500, dtype=torch.float64) * 3
    alpha = torch.tensor([2.0], dtype=torch.float64)
    out, (dx, dalpha), g = gradients(lambda x, a: pact(x, a, 3), x, alpha)
    torch.testing.assert_close(out, (x.clamp(0, 2) * 1.5).round() / 1.5)
    torch.testing.assert_close(dalpha, (g * (x >= 2)).sum().reshape(1))
    torch.testing.assert_close(dx, g * ((x >= 0) & (x < 2)))


def test_pact_at_the_clipping_level_itself():
    _, (dx, dalpha), _ = gradients(
        lambda x, a: pact(x, a, 3).sum(), torch.tensor([2.0, 0.0]), torch.tensor([2.0])
    )
    assert dx.tolist() == [0.0, -1.0] and dalpha.item() == -1.0


def test_pact_is_for_activations():
    with pytest.raises(ValueError, match="Use DoReFa"):
        PACT(role="weight")
    q = PACT(bits=4, alpha=8.0)
    q.init_from(torch.rand(5))
    assert q.q_scale.item() == 8.0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dorefa_original_is_the_published_formula(bits):
    w = torch.randn(300, dtype=torch.float64)
    n = 2**bits - 1
    unit = w.tanh() / (2 * w.tanh().abs().max()) + 0.5
    expected = 2 * (unit * n).round() / n - 1
    torch.testing.assert_close(DoReFa(bits=bits, role="weight")(w), expected)
    assert expected.min() == -1 or expected.max() == 1


def test_dorefa_one_bit_is_sign_times_the_mean():
    w = torch.tensor([0.5, -1.5, 0.0])
    y = DoReFa(bits=1, role="weight")(w)
    torch.testing.assert_close(y, torch.tensor([1.0, -1.0, 1.0]) * 2 / 3)


def test_dorefa_activation():
    x = torch.tensor([-0.3, 0.0, 0.4, 1.0, 1.7], requires_grad=True)
    y = DoReFa(bits=2)(x)
    torch.testing.assert_close(y, torch.tensor([0, 0, 1 / 3, 1, 1]))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("scheme", ["modified", "centered", "stretched"])
def test_modified_codes_are_the_top_bits_of_the_eight_bit_codes(scheme):
    """[T:D1] one stored 8-bit model holds every lower-bit one; rounding would not."""
    w = torch.randn(2000, dtype=torch.float64)
    eight = DoReFa(bits=8, role="weight", scheme=scheme).codes(w).int()
    rounded = DoReFa(bits=8, role="weight").codes(w).int()
    for bits in range(1, 8):
        lower = DoReFa(bits=bits, role="weight", scheme=scheme).codes(w).int()
        assert torch.equal(eight >> (8 - bits), lower)
    original = DoReFa(bits=4, role="weight").codes(w).int()
    assert not torch.equal(rounded >> 4, original)


TWO_BITS = {  # values of w̃ in [0, ¼), [¼, ½), [½, ¾) and [¾, 1]
    "modified": (-1.0, -0.5, 0.0, 0.5),
    "centered": (-0.75, -0.25, 0.25, 0.75),
    "stretched": (-1.0, -1 / 3, 1 / 3, 1.0),
}


@pytest.mark.parametrize("scheme", TWO_BITS)
def test_levels_of_the_nested_schemes_at_two_bits(scheme):
    unit = torch.tensor(
        [0.0, 0.2499, 0.2501, 0.4999, 0.5001, 0.7499, 0.7501, 1.0], dtype=torch.float64
    )
    w = torch.atanh((2 * unit - 1) * 0.9)  # tanh w / max|tanh w| is 2w̃ - 1
    wanted = torch.tensor(TWO_BITS[scheme], dtype=torch.float64).repeat_interleave(2)
    torch.testing.assert_close(DoReFa(bits=2, role="weight", scheme=scheme)(w), wanted)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_policy_of_coquant_and_adabits_uses_the_published_formula(bits):
    """w_q = 2 min(⌊2^k w̃⌋, 2^k - 1)/2^k - 1 (SPEC D.4), element by element."""
    w = torch.randn(200, dtype=torch.float64)
    top = max(abs(math.tanh(v)) for v in w.tolist())
    units = [(math.tanh(v) / top + 1) / 2 for v in w.tolist()]
    expected = [2 * min(math.floor(2**bits * u), 2**bits - 1) / 2**bits - 1 for u in units]
    found = get_policy("coquant").weight.build("weight", bits=bits)(w)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_modified_is_biased_and_centered_is_not():
    """[T:D2] on uniform w̃: bias -2^-k of the modified scheme."""
    unit = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:-1]
    w = torch.atanh((2 * unit - 1) * 0.999)
    target = 2 * (w.tanh() / (2 * w.tanh().abs().max()) + 0.5) - 1
    for bits in (2, 3, 4, 6):
        bias = {
            scheme: (DoReFa(bits=bits, role="weight", scheme=scheme)(w) - target).mean().item()
            for scheme in ("modified", "centered")
        }
        assert abs(bias["centered"]) < 1e-3
        assert bias["modified"] == pytest.approx(-(2.0**-bits), abs=1e-3)


def test_dorefa_weight_gradient_is_that_of_tanh():
    w = torch.randn(50, dtype=torch.float64)
    _, (dw,), g = gradients(DoReFa(bits=3, role="weight"), w)
    t = w.tanh()
    torch.testing.assert_close(dw, g * (1 - t**2) / t.abs().max())


def test_ewgs_scales_the_gradient_by_the_residual():
    x = torch.rand(200, dtype=torch.float64)
    out, (dx,), g = gradients(lambda x: ewgs(x, torch.zeros(1), torch.ones(1), 7, 0.2), x)
    torch.testing.assert_close(out, (x * 7).round() / 7)
    torch.testing.assert_close(dx, g * (1 + 0.2 * g.sign() * (x - out)))


def test_ewgs_with_delta_zero_is_straight_through():
    """[T:E5]"""
    x = torch.rand(50)
    _, (dx,), g = gradients(lambda x: ewgs(x, torch.zeros(1), torch.ones(1), 3, 0.0), x)
    torch.testing.assert_close(dx, g)


def test_ewgs_bounds_get_the_gradients_of_its_formula():
    """Against autograd through x_n = clip((x-l)/w, 0, 1) with the rounding's gradient as a factor."""
    x, lower, width = torch.randn(300).double(), torch.tensor([-0.7]).double(), torch.tensor([1.3])
    width = width.double()
    _, ours, g = gradients(lambda *leaves: ewgs(*leaves, 7, 0.2), x, lower, width)
    leaves = [t.clone().requires_grad_() for t in (x, lower, width)]
    unit = (leaves[0] - leaves[1]) / leaves[2]
    unit = torch.where((unit >= 0) & (unit <= 1), unit, (unit > 1).double())
    residual = (unit - (unit * 7).round() / 7).detach()
    (unit * g * (1 + 0.2 * g.sign() * residual)).sum().backward()
    for mine, leaf in zip(ours, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad)


def test_ewgs_levels_and_bounds():
    w = torch.randn(3000)
    q = EWGS(bits=2, role="weight")
    q.init_from(w)
    assert q.q_lower.item() == pytest.approx(-3 * w.std(correction=0).item(), rel=1e-4)
    torch.testing.assert_close(q(w).unique(), torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    x = torch.rand(3000)
    q = EWGS(bits=2)
    q.init_from(x)
    upper = 3 * x.std(correction=0).item() / math.sqrt(1 - 2 / math.pi)
    assert (q.q_lower + q.q_scale).item() == pytest.approx(upper, rel=1e-4)


def test_sign_values_and_slopes():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.5])
    y, (dx,), g = gradients(lambda x: sign(x, torch.ones(1)), x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    torch.testing.assert_close(dx, g * (x.abs() <= 1))
    _, (dx,), g = gradients(lambda x: sign(x, torch.ones(1), polynomial=True), x)
    torch.testing.assert_close(dx, g * (x.abs() <= 1) * (2 - 2 * x.abs()))


def test_sign_with_the_mean_magnitude():
    w = torch.tensor([[0.5, -1.5], [2.0, 2.0]])
    q = Sign(bits=1, role="weight", magnitude="mean", channels=2, ndim=2)
    q.init_from(w)
    torch.testing.assert_close(q(w), torch.tensor([[1.0, -1.0], [2.0, 2.0]]))
    assert q.codes(w).tolist() == [[1, -1], [1, 1]]
