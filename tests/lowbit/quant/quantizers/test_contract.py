"""What holds for every quantizer at every bit-width: codes, grid and forward pass tell one story."""

import pytest
import torch

from lowbit.quant import QUANTIZERS

WEIGHTS = {
    "MinMax symmetric": ("MinMax", {"scheme": "symmetric", "range": "call"}),
    "MinMax zero": ("MinMax", {"scheme": "zero_anchored", "range": "call"}),
    "MinMax min": ("MinMax", {"scheme": "min_anchored", "range": "call"}),
    "MinMax floor": ("MinMax", {"scheme": "zero_anchored", "range": "call", "rounding": "floor"}),
    "LSQ": ("LSQ", {}),
    "LSQPlus": ("LSQPlus", {}),
    "DoReFa": ("DoReFa", {}),
    "DoReFa modified": ("DoReFa", {"scheme": "modified"}),
    "DoReFa stretched": ("DoReFa", {"scheme": "stretched"}),
    "DoReFa centered": ("DoReFa", {"scheme": "centered"}),
    "ScaledDoReFa": ("ScaledDoReFa", {}),
    "Interval": ("Interval", {}),
    "EWGS": ("EWGS", {}),
    "Sign": ("Sign", {}),
    "Sign mean": ("Sign", {"magnitude": "mean"}),
}
ACTIVATIONS = {
    "MinMax": ("MinMax", {}),
    "MinMax running": ("MinMax", {"scheme": "zero_anchored", "range": "running"}),
    "LSQ": ("LSQ", {}),
    "LSQPlus": ("LSQPlus", {}),
    "PACT": ("PACT", {}),
    "DoReFa": ("DoReFa", {}),
    "Interval": ("Interval", {}),
    "EWGS": ("EWGS", {}),
    "Sign": ("Sign", {}),
}
CASES = [
    *[(name, "weight", "tensor") for name in WEIGHTS],
    *[(name, "weight", "channel") for name in WEIGHTS],
    *[(name, "activation", "tensor") for name in ACTIVATIONS],
]
BITS = [1, 2, 3, 4, 8, 16]


def make(case, bits, *, relu=True):
    name, role, granularity = case
    kind, options = (WEIGHTS if role == "weight" else ACTIVATIONS)[name]
    x = torch.randn(6, 4, 3, 3)
    x = x if role == "weight" or not relu else x.relu()
    place = {"channels": 6, "ndim": 4} if granularity == "channel" else {}
    q = QUANTIZERS[kind](bits=bits, role=role, **place, **options)
    q.init_from(x)
    return q.eval(), x


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_forward_is_codes_times_step_plus_offset(case, bits):
    q, x = make(case, bits)
    step, offset = q.grid(x)
    torch.testing.assert_close(q(x), q.codes(x) * step + offset, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_has_at_most_2_to_the_b_codes(case, bits):
    q, x = make(case, bits)
    codes = q.codes(x)
    assert not codes.is_floating_point()
    rows = codes.flatten(1) if case[2] == "channel" else codes.flatten()[None]
    # Eq. 9 has no zero-point and no clamp: its grid may span one code more (SPEC T:B2)
    spare = 1 if "zero" in case[0] or "running" in case[0] or "floor" in case[0] else 0
    for row in rows:
        assert row.unique().numel() <= 2**bits + spare


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_gradients_are_finite_and_reach_the_input(case):
    q, x = make(case, 4)
    q.train()
    leaf = x.clone().requires_grad_()
    q(leaf).square().sum().backward()
    assert leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0
    for parameter in q.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_half_precision_stays_half_outside_and_float32_inside(case):
    q, x = make(case, 8)
    half = x.to(torch.bfloat16)
    assert q(half).dtype == torch.bfloat16
    torch.testing.assert_close(
        q(half).float(), q(half.float()).to(torch.bfloat16).float(), rtol=0, atol=0
    )


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_zeros_and_empty_batches_are_defined(case):
    q, x = make(case, 4)
    fresh = type(q)(
        bits=4,
        role=case[1],
        **({"channels": 6, "ndim": 4} if case[2] == "channel" else {}),
        **(WEIGHTS if case[1] == "weight" else ACTIVATIONS)[case[0]][1],
    )
    zeros = torch.zeros_like(x)
    fresh.init_from(zeros)
    assert fresh(zeros).isfinite().all()
    assert q(x[:0]).shape == x[:0].shape


# Where the range is not that of the tensor itself: an infinite range has no finite grid.
BY_TENSOR = ("MinMax ", "Sign mean", "ScaledDoReFa")
CLIPPING = [case for case in CASES if not case[0].startswith(BY_TENSOR)]


@pytest.mark.parametrize("case", CLIPPING, ids=" ".join)
def test_infinite_values_are_clipped_and_spoil_no_gradient(case):
    q, x = make(case, 4)
    q.train()
    x.view(-1)[0], x.view(-1)[-1] = torch.inf, -torch.inf
    leaf = x.requires_grad_()
    y = q(leaf)
    assert y.isfinite().all()
    y.square().sum().backward()
    assert leaf.grad.isfinite().all()
    for parameter in q.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_off_is_the_identity(case):
    q, x = make(case, 4)
    q.bits = 32
    assert q(x) is x


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_state_dict_restores_the_quantizer(case):
    q, x = make(case, 3)
    other, _ = make(case, 3, relu=False)
    other.load_state_dict(q.state_dict())
    assert torch.equal(other(x), q(x))
