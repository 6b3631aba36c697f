"""Quantized networks under what a training loop puts around them."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lowbit.quant import (
    QUANTIZERS,
    Precision,
    all_quantizers,
    calibrate,
    quantize,
    quantized_layers,
    scales,
    set_precision,
    use_fused_kernels,
)
from lowbit.training import distributed
from tests.forked_ranks import in_processes

POLICIES = ["lsq", "tr", "ssql", "cq"]
IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 5


def network(policy, precision="8w8a", *, calibrated=True):
    """No normalization, so that a batch may be split; biases, so that `tr` learns output scales."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )
    quantize(net, policy)
    if calibrated:
        calibrate(net, [IMAGES])
    set_precision(net, precision)
    return net


def optimizer_for(net):
    return torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.05, momentum=0.9)


def step(net, optimizer, images=IMAGES, labels=LABELS):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def gradients(net):
    return {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}


def states_equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_copy_made_in_mid_training_goes_its_own_identical_way(policy):
    net = network(policy)
    optimizer = optimizer_for(net)
    step(net, optimizer)
    twin = copy.deepcopy(net)
    other = optimizer_for(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy(net.state_dict())
    losses = [step(twin, other) for _ in range(2)]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert [step(net, optimizer) for _ in range(2)] == losses
    assert states_equal(net, twin)
    assert not torch.equal(before["2.weight"], net.state_dict()["2.weight"])


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_averaged_model_averages_weights_and_scales_and_evaluates(policy, use_buffers):
    net = network(policy)
    optimizer = optimizer_for(net)
    step(net, optimizer)  # output scales exist from the first low-bit pass on
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    expected = None
    for _ in range(3):
        step(net, optimizer)
        ema.update_parameters(net)
        now = {k: p.detach().clone() for k, p in net.named_parameters()}
        if expected is None:
            expected = now
        else:
            expected = {k: 0.9 * v + 0.1 * now[k] for k, v in expected.items()}
    averaged = dict(ema.module.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name].detach(), value, rtol=1e-5, atol=1e-6)
    ema.eval()
    assert ema(IMAGES).isfinite().all()
    restored = network(policy, calibrated=False).eval()  # an average is saved and resumed, too
    restored.load_state_dict(ema.module.state_dict())
    assert torch.equal(restored(IMAGES), ema(IMAGES))


@pytest.mark.parametrize("policy", POLICIES)
def test_clipping_bounds_the_norm_of_all_gradients_with_the_scales(policy):
    net = network(policy)
    (100 * F.cross_entropy(net(IMAGES), LABELS)).backward()
    before = gradients(net)
    norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    after = gradients(net)
    assert norm > 0.5
    for name, g in before.items():
        torch.testing.assert_close(after[name], g * 0.5 / (norm + 1e-6))
    assert all(p.grad is not None for p in scales(net))


@pytest.mark.parametrize("policy", POLICIES)
def test_autocast_leaves_levels_in_float32(policy):
    """A quantizer's output is what float32 gives, rounded once, to the type that came in."""
    net = network(policy).eval()
    seen = {}
    handles = [
        q.register_forward_hook(lambda q, args, y: seen.update({q: (args[0], y)}))
        for q in all_quantizers(net)
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net(IMAGES)
        for handle in handles:
            handle.remove()
        codes = {q: q.codes(x) for q, (x, _) in seen.items()}
    assert len(seen) == len(all_quantizers(net))
    assert {x.dtype for x, _ in seen.values()} == {torch.float32, torch.bfloat16}
    for q, (x, y) in seen.items():
        assert y.dtype == x.dtype and torch.equal(y, q(x.float()).to(x.dtype))
        assert torch.equal(codes[q], q.codes(x.float()))


@pytest.mark.parametrize("policy", POLICIES)
def test_autocast_leaves_scales_and_gradients_in_float32_and_finite(policy):
    net = network(policy)
    optimizer = optimizer_for(net)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(IMAGES).float(), LABELS)
        loss.backward()
        assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients(net).values())
        assert all(p.grad is not None and p.dtype == torch.float32 for p in scales(net))
        optimizer.step()


@pytest.mark.parametrize("kind", ["LSQ", "MinMax", "LSQPlus", "PACT", "Interval", "EWGS", "DoReFa"])
def test_eight_bit_levels_survive_inside_a_bfloat16_pass(kind):
    q = QUANTIZERS[kind](bits=8)
    x = torch.linspace(0, 16, 20_000)  # LSQ starts with 17 of its levels in [0, 1]
    q.init_from(x / 16)
    expected = q(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, codes = q(x), q.codes(x)
    assert y.dtype == torch.float32 and torch.equal(y, expected)
    assert y.unique().numel() == codes.unique().numel() > 150


def _calibrated_double(policy, images):
    """In float64: in float32 the order of a sum, in which processes differ, flips codes."""
    net = network(policy, calibrated=False).double()
    calibrate(net, [images.double()])
    return net.eval()  # `cq` would take the range of each process's own batch


def _train(net, images, labels):
    """Three steps; return the first one's gradients."""
    optimizer = optimizer_for(net)
    step(net, optimizer, images.double(), labels)
    first = gradients(net)
    for _ in range(2):
        step(net, optimizer, images.double(), labels)
    return {name.removeprefix("module."): g for name, g in first.items()}


def _snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def _train_on_a_rank():
    half = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    found = {}
    for policy in POLICIES:
        net = _calibrated_double(policy, IMAGES[half])
        start = _snapshot(net)
        first = _train(DistributedDataParallel(net), IMAGES[half], LABELS[half])
        found[policy] = start, first, _snapshot(net)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return in_processes(_train_on_a_rank, folder=tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("policy", POLICIES)
def test_ranks_agree_on_what_they_calibrated_and_on_what_they_learned(policy, ranks):
    for first, second in zip(ranks[0][policy], ranks[1][policy], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("policy", POLICIES)
def test_two_processes_train_as_one_with_their_batch(policy, ranks):
    start, first, final = ranks[0][policy]
    net = _calibrated_double(policy, IMAGES)
    if (
        policy != "cq"
    ):  # whose running range is the average of two batches', not that of their union
        for name, value in net.state_dict().items():
            torch.testing.assert_close(start[name], value, rtol=1e-7, atol=0)
    net.load_state_dict(start)
    own = _train(net, IMAGES, LABELS)
    assert own.keys() == first.keys()
    for name, g in own.items():
        torch.testing.assert_close(first[name], g, rtol=1e-9, atol=1e-14)
    for (
        name,
        value,
    ) in net.state_dict().items():  # loosely: 1e-16 flips the code of a value on a tie
        moved = (value - start[name]).double().norm()
        assert (final[name] - value).double().norm() <= 0.05 * moved, name


@pytest.fixture
def fused(request):
    use_fused_kernels(request.param)
    yield
    use_fused_kernels(None)


@pytest.mark.parametrize(
    ("policy", "fused"),  # None: where they pay off at once; on a GPU that is everywhere
    [("lsq", True), ("tr", None), ("ssql", True), ("cq", None)],
    indirect=["fused"],
)
def test_compiled_networks_compute_what_eager_ones_do_at_every_precision(policy, fused):
    torch._dynamo.reset()
    net = network(policy)
    net.eval()
    compiled = torch.compile(net, backend="aot_eager_default_partitioner", fullgraph=True)
    for precision in ("8w8a", "3w4a", "FP", "8w8a"):
        set_precision(net, precision)
        found = []
        for module in (net, compiled):
            net.zero_grad()
            loss = module(IMAGES).square().sum()
            loss.backward()
            found.append((loss.detach(), gradients(net)))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.usefixtures("trusted_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_networks_compiled_by_inductor_compute_what_eager_ones_do(policy):
    """Fused sums round otherwise, so a code may differ: close at 8 bits, in norm."""
    torch._dynamo.reset()
    net = network(policy)
    net.eval()(IMAGES)
    compiled = torch.compile(net, fullgraph=True)
    for precision in ("8w8a", "6w6a"):
        set_precision(net, precision)
        found = []
        for module in (net, compiled):
            net.zero_grad()
            out = module(IMAGES)
            out.square().sum().backward()
            found.append((out.detach(), gradients(net)))
        (eager, expected), (out, actual) = found
        assert (out - eager).norm() < 0.01 * eager.norm()
        for name, g in expected.items():
            assert (actual[name] - g).norm() < 0.05 * g.norm() + 1e-5, name
    torch._dynamo.reset()


@pytest.mark.parametrize("policy", POLICIES)
def test_an_optimizer_made_right_after_quantize_holds_and_moves_the_scales(policy):
    net = network(policy, calibrated=False)
    learned = scales(net)
    optimizer = optimizer_for(net)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    calibrate(net, [IMAGES])
    step(net, optimizer)
    assert [id(p) for p in scales(net)] == [id(p) for p in learned]
    assert {id(p) for p in learned} <= held
    before = [p.detach().clone() for p in learned]
    step(net, optimizer)
    assert all(not torch.equal(p, b) for p, b in zip(learned, before, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_resuming_restores_scales_that_were_set_late(policy):
    """Set by the first training batch, not by calibrate; the resumed model never sees that batch."""
    net = network(policy, calibrated=False)
    optimizer = optimizer_for(net)
    step(net, optimizer)
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network(policy, "4w4a", calibrated=False)  # at other bits until it is loaded
    set_precision(other, "8w8a")
    other.load_state_dict(saved["net"])
    resumed = optimizer_for(other)
    resumed.load_state_dict(saved["optimizer"])
    assert torch.equal(step(net, optimizer, 2 * IMAGES), step(other, resumed, 2 * IMAGES))
    assert states_equal(net, other)
    assert torch.equal(net.eval()(IMAGES), other.eval()(IMAGES))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_first_batch_of_zeros_is_trained_through(policy):
    """Scales found on nothing but zeros are 1 and finite; a later calibration sets them anew."""
    net = network(policy, calibrated=False)
    optimizer = optimizer_for(net)
    for images in (0 * IMAGES, IMAGES):
        assert step(net, optimizer, images).isfinite()
    assert all(v.isfinite().all() for k, v in net.state_dict().items())
    calibrate(net, [IMAGES])
    fresh = network(policy, calibrated=False)
    fresh.load_state_dict({k: v for k, v in net.state_dict().items() if "a_quant" not in k}, False)
    calibrate(fresh, [IMAGES])
    assert torch.equal(fresh.eval()(IMAGES), net.eval()(IMAGES))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_dead_channel_stays_dead_and_its_neighbours_are_quantized(policy, granularity):
    weight = torch.randn(4, 3, 3, 3)
    weight[1] = 0
    layer = nn.Conv2d(3, 4, 3, bias=False)
    layer.weight.data.copy_(weight)
    kind = {"lsq": "LSQ", "tr": "Interval", "ssql": "MinMax", "cq": "MinMax"}[policy]
    options = {"scheme": "zero_anchored" if policy == "cq" else "symmetric", "range": "call"}
    spec = {
        "kind": kind,
        "granularity": granularity,
        "options": options if kind == "MinMax" else {},
    }
    net = quantize(
        nn.Sequential(layer), {"base": "lsq", "weight": spec, "first": 4}, Precision(4, 4)
    )
    calibrate(net, [IMAGES])
    quantized = layer.quantized_weight()
    assert (quantized[1] == 0).all()
    for channel in (0, 2, 3):
        assert 2 < quantized[channel].unique().numel() <= 17
    net(IMAGES).square().sum().backward()
    assert all(g.isfinite().all() for g in gradients(net).values())
    assert layer.weight.grad[0].abs().sum() > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_an_average_made_before_calibration_follows_the_buffers_it_is_given(policy):
    """Its quantizers were copied without a scale; an average copies tensors and no attributes."""
    net = network(policy, calibrated=False)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.0), use_buffers=True)
    optimizer = optimizer_for(net)
    for _ in range(3):
        step(net, optimizer)
        ema.update_parameters(net)
    torch.testing.assert_close(ema.eval()(IMAGES), net.eval()(IMAGES))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_nan_weight_shows_in_the_output_and_is_never_rounded_to_a_level(policy):
    """torch's own fake-quantization turns NaN into the lowest level, in silence."""
    net = network(policy)
    layer = next(iter(quantized_layers(net).values()))
    layer.weight.data[0, 0, 0, 0] = float("nan")
    assert layer.quantized_weight()[0, 0, 0, 0].isnan()
    assert net.eval()(IMAGES).isnan().all()
    with pytest.raises(FloatingPointError, match="NaN or infinity entered"):
        calibrate(net, [IMAGES])
