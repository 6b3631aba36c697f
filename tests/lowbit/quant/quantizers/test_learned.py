"""Learned scales: at zero, at other bit-widths, and averaged."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lowbit.quant import (
    QUANTIZERS,
    all_quantizers,
    calibrate,
    list_policies,
    quantize,
    set_precision,
    use_fused_kernels,
)
from lowbit.quant.quantizers.learned import SMALLEST_SCALE, LearnedScale

LEARNED = [name for name, cls in QUANTIZERS.items() if issubclass(cls, LearnedScale)]
ROLES = {"PACT": ["activation"]}
CASES = [
    (name, role, channels)
    for name in LEARNED
    for role in ROLES.get(name, ["weight", "activation"])
    for channels in ([None, 6] if role == "weight" else [None])
]
ONE_BIT = ("interval-binary", "reactnet")
IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def make(case, bits=4, x=None, **options):
    name, role, channels = case
    q = QUANTIZERS[name](bits=bits, role=role, channels=channels, ndim=4, **options)
    x = torch.randn(6, 4, 3, 3) if x is None else x
    q.init_from(x)
    return q, x


# At zero


@pytest.fixture(params=["eager", "automatic"])
def kernels(request):
    use_fused_kernels(False if request.param == "eager" else None)
    yield
    use_fused_kernels(None)


@pytest.mark.parametrize("bits", [1, 4, 16])
@pytest.mark.parametrize("scale", [0.0, -0.0, 1e-38, -1e-30])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scale_of_zero_is_finite_both_ways_and_moves_on(case, scale, bits, kernels):
    q, x = make(case, bits)
    x.view(-1)[:3] = torch.tensor([0.0, -0.0, 1e4])
    x.requires_grad_()
    with torch.no_grad():
        q.q_scale.fill_(scale)
    y = q(x)
    y.backward(torch.linspace(-1, 1, y.numel()).reshape(y.shape))
    assert y.isfinite().all() and x.grad.isfinite().all()
    step, offset = q.grid(x)
    assert torch.isfinite(q.codes(x) * step + offset).all()
    for name, parameter in q.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert (q.scale > 0).all() and not q.codes(x).is_floating_point()
    points = q.transition_points(x.detach())
    assert points is None or points.weights.isfinite().all()


@pytest.mark.parametrize("at", [0.0, 1e-9, -1e-9])
def test_gradient_passes_through_the_floor(at):
    q = QUANTIZERS["Interval"](bits=4)
    q.init_from(torch.rand(5))
    with torch.no_grad():
        q.q_scale.fill_(at)
    assert q.scale.item() == SMALLEST_SCALE
    (3 * q.scale).sum().backward()
    assert q.q_scale.grad.item() == (-3.0 if at < 0 else 3.0)


# At other bit-widths


@pytest.mark.parametrize("case", [c for c in CASES if c[0] in ("LSQ", "LSQPlus")], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_sgd_moves_a_step_as_if_it_were_the_parameter(case, bits):
    """Against a quantizer whose parameter is the step at these bits; momentum and decay included."""
    x = torch.randn(6, 4, 3, 3)
    moved = {}
    for reference in (4, bits):
        q, _ = make(case, reference, x=x)
        q.bits = bits
        optimizer = torch.optim.SGD(q.parameters(), lr=0.1, momentum=0.9)
        steps = []
        for _ in range(4):
            optimizer.zero_grad()
            (q(x) - x).square().sum().backward()
            optimizer.step()
            steps.append(torch.cat([t.detach().flatten().clone() for t in q.grid(x)[:1]]))
        moved[reference] = torch.stack(steps)
    assert not moved[bits][0].equal(moved[bits][3])
    torch.testing.assert_close(moved[4], moved[bits], rtol=2e-4, atol=1e-6)


# Averaged


def network(policy, seed=1):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    head = [nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return quantize(nn.Sequential(*layers, *head), policy)


def at(policy, precision):
    return "1w1a" if policy in ONE_BIT else precision


def copied(average, net):
    """Average every tensor by hand, once, as code that knows of no modules does."""
    with torch.no_grad():
        for mine, other in zip(
            average.state_dict().values(), net.state_dict().values(), strict=True
        ):
            mine.copy_(0.3 * mine + 0.7 * other)


AVERAGES = {
    "swa": lambda net: AveragedModel(net),
    "ema": lambda net: AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    "ema of all tensors": lambda net: AveragedModel(
        net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
    ),
    "by hand": copy.deepcopy,
}


def update(average, net):
    average.update_parameters(net) if isinstance(average, AveragedModel) else copied(average, net)


def assert_is(average, net):
    """That an average is the network: outputs, and every scale."""
    average.eval(), net.eval()
    torch.testing.assert_close(average(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)
    for mine, other in zip(all_quantizers(average), all_quantizers(net), strict=True):
        if isinstance(mine, LearnedScale):
            torch.testing.assert_close(mine.scale, other.scale, rtol=1e-5, atol=0)
    net.train()


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("policy", list_policies())
def test_an_average_of_a_network_that_stands_still_is_that_network(policy, kind):
    net = network(policy)
    calibrate(net, [IMAGES])
    average = AVERAGES[kind](net)
    set_precision(net, at(policy, "4w4a"))
    for precision in ("2w2a", "8w8a", "4w4a"):  # scored at other bits between updates
        update(average, net)
        set_precision(average, at(policy, precision))
        average.eval()(IMAGES)
    assert_is(average, net)


@pytest.mark.parametrize("policy", list_policies())
def test_an_average_made_before_calibration_follows(policy):
    net = network(policy)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.0))
    calibrate(net, [IMAGES])
    set_precision(net, at(policy, "3w3a"))
    for _ in range(2):
        average.update_parameters(net)
    set_precision(average, at(policy, "3w3a"))
    assert_is(average, net)


@pytest.mark.parametrize("policy", list_policies())
def test_an_average_follows_a_network_that_is_calibrated_again(policy):
    """On data of another sign: what a forward pass branches on is in the tensors."""
    net = network({"base": policy, "first": "target"})
    calibrate(net, [IMAGES.abs()])
    set_precision(net, at(policy, "4w4a"))
    average = AVERAGES["ema"](net)
    average.update_parameters(net)
    average.eval()(IMAGES)
    calibrate(net, [IMAGES])
    with torch.no_grad():
        for mine, other in zip(
            average.module.state_dict().values(), net.state_dict().values(), strict=True
        ):
            mine.copy_(other)
    assert_is(average, net)


@pytest.mark.parametrize("policy", ["lsq", "lsqplus", "interval", "ewgs", "pact"])
def test_scales_of_an_average_are_the_averages_of_the_scales(policy):
    nets = [network(policy, seed) for seed in (1, 2)]
    for net in nets:
        calibrate(net, [IMAGES])
    nets[1].load_state_dict(nets[0].state_dict())
    for p in nets[1].parameters():
        p.data.mul_(1 + torch.rand_like(p))
    average = copy.deepcopy(nets[0])
    with torch.no_grad():
        for mine, a, b in zip(average.parameters(), *(n.parameters() for n in nets), strict=True):
            mine.copy_((a + b) / 2)
    for net, precision in zip((*nets, average), ("8w8a", "2w2a", "5w5a"), strict=True):
        set_precision(net, precision)
    for precision in ("2w2a", "4w4a", "8w8a"):
        for net in (*nets, average):
            set_precision(net, precision)
        for mine, *others in zip(all_quantizers(average), *map(all_quantizers, nets), strict=True):
            if isinstance(mine, LearnedScale):
                torch.testing.assert_close(mine.scale, (others[0].scale + others[1].scale) / 2)
