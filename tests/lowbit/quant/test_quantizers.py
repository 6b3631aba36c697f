import math

import pytest
import torch

from lowbit.quant import LSQ, QUANTIZERS, Interval, MinMax


def ssql_weight(**options):
    defaults = {"scheme": "symmetric", "range": "call", "scale_gradient": True, "role": "weight"}
    return MinMax(**{**defaults, **options})


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
def test_ssql_weight_codes_and_error(bits):
    """[T:A1, A2] codes in [-2^(b-1), 2^(b-1)-1]; |ŵ - w| <= s/2, but for +max, which is a tie."""
    w = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    q = ssql_weight(bits=bits, channels=6, ndim=4)
    s, _ = q.grid(w)
    codes = q.codes(w)
    assert codes.min() >= -(2 ** (bits - 1)) and codes.max() <= 2 ** (bits - 1) - 1
    assert s.shape == (6, 1, 1, 1)
    torch.testing.assert_close(s.flatten(), w.abs().flatten(1).amax(1) / ((2**bits - 1) / 2))
    assert ((q(w) - w).abs() <= s / 2 + 1e-12).all()
    torch.testing.assert_close(q(w), codes * s)


def test_ssql_two_bit_weights_sit_on_ties():
    """[T:A3] b=2: +max -> code 1 (0.667 max), -max -> code -2 (-1.333 max)."""
    w = torch.tensor([3.0, -3.0, 0.5])
    q = ssql_weight(bits=2)
    assert q.codes(w).tolist() == [1, -2, 0]
    torch.testing.assert_close(q(w), torch.tensor([2.0, -4.0, 0.0]))


def test_ssql_activation_keeps_zero_exact():
    """[T:A4] after ReLU: 0 is a level, |x̂ - x| <= s/2, at most 2^b levels."""
    x = torch.randn(2, 8, 6, 6).relu()
    for bits in (2, 3, 4, 8):
        q = MinMax(bits=bits)
        q.init_from(x)
        y = q(x)
        assert (y[x == 0] == 0).all()
        assert (y - x).abs().max() <= q.scale / 2 + 1e-6
        assert y.unique().numel() <= 2**bits
        assert q.codes(x).element_size() == 1


def test_ssql_activation_scale_and_zero_point():
    x = torch.tensor([-1.0, 0.1, 2.0])
    q = MinMax(bits=2)
    q.init_from(x)
    s, offset = q.grid(x)
    assert s.item() == 1.0 and (-offset / s).item() == 1.0
    assert q.codes(x).tolist() == [0, 1, 3] and q(x).tolist() == [-1.0, 0.0, 2.0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_attached_weight_scale_changes_the_gradient_of_the_largest_weight_only(bits):
    """[T:A5] and SPEC A.4's closed form, in float64."""
    w = torch.randn(4, 30, dtype=torch.float64)
    upstream = torch.randn_like(w)
    grads = []
    for attached in (True, False):
        leaf = w.clone().requires_grad_()
        q = ssql_weight(bits=bits, channels=4, ndim=2, scale_gradient=attached)
        grads.append(torch.autograd.grad(q(leaf), leaf, upstream)[0])
    top = w.abs().argmax(1, keepdim=True)
    differs = (grads[0] != grads[1]).nonzero()
    assert differs[:, 1].tolist() == top.flatten().tolist()

    n = (2**bits - 1) / 2
    s = w.abs().amax(1, keepdim=True) / n
    q = (w / s).round()
    inside = (q >= -(2 ** (bits - 1))) & (q <= 2 ** (bits - 1) - 1)
    clamped = q.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    ds = (upstream * torch.where(inside, clamped - w / s, clamped)).sum(1, keepdim=True)
    expected = upstream * inside
    expected.scatter_add_(1, top, ds * w.gather(1, top).sign() / n)
    torch.testing.assert_close(grads[0], expected, rtol=1e-10, atol=1e-10)


def test_a_dead_channel_does_not_leave_its_layer_in_full_precision():
    """[T:A8] official code returns the whole layer unquantized when one channel is zero."""
    w = torch.randn(4, 9)
    w[2] = 0
    y = ssql_weight(bits=2, channels=4, ndim=2)(w)
    assert (y[2] == 0).all()
    for channel in (0, 1, 3):
        assert y[channel].unique().numel() <= 4 and not torch.equal(y[channel], w[channel])


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
@pytest.mark.parametrize("scheme", ["affine", "zero_anchored", "min_anchored"])
def test_a_constant_tensor_stays_exact(value, scheme):
    x = torch.full((3, 4), value)
    y = MinMax(bits=4, scheme=scheme, range="call")(x)
    torch.testing.assert_close(y, x)


def test_ranges_accumulate_while_observing_and_do_not_quantize():
    q = MinMax(bits=4)
    q.observing = True
    for x in (torch.tensor([0.0, 1.0]), torch.tensor([-2.0, 0.5])):
        assert q(x) is x
    q.observing = False
    q.finish()
    assert (q.q_min.item(), q.q_max.item()) == (-2.0, 1.0)
    q.reset()
    assert not q.initialized


def test_running_range_is_an_average_and_serves_evaluation():
    q = MinMax(bits=4, scheme="zero_anchored", range="running", momentum=0.9)
    q(torch.tensor([0.0, 1.0]))
    q(torch.tensor([0.0, 2.0]))
    assert q.q_max.item() == pytest.approx(1.1)
    q.eval()
    before = q.q_max.clone()
    q(torch.tensor([0.0, 100.0]))
    assert torch.equal(q.q_max, before)


@pytest.mark.parametrize("kind", ["MinMax", "LSQ", "Interval"])
def test_evaluating_before_calibrating_is_refused(kind):
    q = QUANTIZERS[kind](bits=4).eval()
    with pytest.raises(RuntimeError, match="nothing was quantized"):
        q(torch.rand(3))


@pytest.mark.parametrize("kind", ["MinMax", "LSQ", "Interval"])
def test_contract(kind):
    q = QUANTIZERS[kind](bits=4)
    x = torch.randn(5, 7)
    q.init_from(x)
    assert q.bits == 4 and q.granularity == "tensor" and isinstance(q.signed, bool)
    assert q.scale.shape == (1,)
    codes = q.codes(x)
    assert not codes.is_floating_point() and codes.shape == x.shape
    assert codes.unique().numel() <= 16
    assert q(x).unique().numel() == codes.unique().numel()  # one value a code
    q.bits = 32
    assert q(x) is x


@pytest.mark.parametrize("kind", ["MinMax", "LSQ", "Interval"])
def test_an_empty_batch_passes_through(kind):
    q = QUANTIZERS[kind](bits=4)
    assert q(torch.empty(0, 3)).shape == (0, 3)
    assert not q.initialized


def test_lsq_initial_step_and_gradient_scale():
    """[T:E] s = 2 mean|v| / sqrt(Q_P); g = 1/sqrt(N Q_P), N weights, or features of one sample."""
    w = torch.randn(8, 4, 3, 3)
    q = LSQ(bits=3, role="weight")
    q.init_from(w)
    assert q.signed and q.levels() == (-4, 3)
    assert q.q_scale.item() == pytest.approx(2 * w.abs().mean().item() / math.sqrt(3), rel=1e-6)

    for role, numel in (("weight", w.numel()), ("activation", w[0].numel())):
        q = LSQ(bits=3, role=role)
        q.init_from(w)
        q(w).sum().backward()
        s = q.q_scale.detach()
        ratio = w / s
        slope = torch.where(ratio <= -4, -4.0, torch.where(ratio >= 3, 3.0, ratio.round() - ratio))
        expected = slope.sum() / math.sqrt(numel * 3)
        assert q.q_scale.grad.item() == pytest.approx(expected.item(), rel=1e-4)


def test_lsq_after_relu_is_unsigned():
    q = LSQ(bits=2)
    q.init_from(torch.rand(10))
    assert not q.signed and q.levels() == (0, 3)


@pytest.mark.parametrize("kind", ["LSQ", "LSQPlus"])
@pytest.mark.parametrize("role", ["weight", "activation"])
def test_a_step_follows_a_change_of_bits_by_its_initialization_rule(kind, role):
    x = torch.randn(5, 100)
    q, off = (QUANTIZERS[kind](bits=bits, role=role) for bits in (8, 32))
    for quantizer in (q, off):
        quantizer.init_from(x)
    before = {name: tensor.clone() for name, tensor in q.state_dict().items()}
    for bits in (3, 32, 2, 8):
        fresh = QUANTIZERS[kind](bits=bits, role=role)
        fresh.init_from(x)
        q.bits = off.bits = bits
        for other in (q, off) if bits < 32 else ():
            torch.testing.assert_close(other.scale, fresh.scale)
            torch.testing.assert_close(other(x), fresh(x))
    for name, tensor in q.state_dict().items():
        assert tensor.equal(before[name]), f"switching changed {name}"


@pytest.mark.parametrize("step", [0.0, -0.1])
def test_a_step_size_driven_to_zero_or_below_stays_defined(step):
    q = LSQ(bits=4, role="weight")
    x = torch.randn(20, requires_grad=True)
    q.init_from(x)
    with torch.no_grad():
        q.q_scale.fill_(step)
    y = q(x)
    y.sum().backward()
    assert y.isfinite().all() and q.q_scale.grad.isfinite().all()
    assert (q.scale > 0).all()


def test_interval_initial_scales():
    """As in EWGS (SPEC C.3): 3 std for weights, 3 std / sqrt(1 - 2/π) for activations."""
    w, x = torch.randn(1000), torch.rand(1000)
    q = Interval(bits=4, role="weight")
    q.init_from(w)
    assert q.q_scale.item() == pytest.approx(3 * w.std(correction=0).item(), rel=1e-4)
    q.init_from(x)
    expected = 3 * x.std(correction=0).item() / math.sqrt(1 - 2 / math.pi)
    assert q.q_scale.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["LSQ", "Interval", "MinMax"])
def test_state_survives_a_checkpoint(kind):
    x = torch.rand(4, 6)
    q = QUANTIZERS[kind](bits=3)
    q.init_from(x)
    other = QUANTIZERS[kind](bits=3)
    other.load_state_dict(q.state_dict())
    assert other.initialized and other.signed == q.signed
    assert torch.equal(other.eval()(x), q.eval()(x))


def test_learned_scale_exists_before_the_first_batch():
    q = LSQ(bits=4, channels=5, ndim=4, role="weight")
    assert q.q_scale.shape == (5, 1, 1, 1)
    parameter = q.q_scale
    q.init_from(torch.randn(5, 2, 3, 3))
    assert q.q_scale is parameter


@pytest.mark.parametrize(
    "options",
    [{"scheme": "afine"}, {"range": "ever"}, {"rounding": "floor", "scheme": "symmetric"}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="no quantizer was made"):
        MinMax(**options)
