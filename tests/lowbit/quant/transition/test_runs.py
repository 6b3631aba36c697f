"""T-optimizers in a training as it is run: without waiting for the device, scaled, and on two ranks."""

from collections import Counter

import pytest
import torch
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from lowbit.backbones import create_backbone
from lowbit.quant import Precision, quantize, quantized_layers, t_variant, use_fused_kernels
from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.transition import sgd_step
from lowbit.training import distributed
from tests.forked_ranks import in_processes

OPTIONS = {"lr": 0.05, "target": 0.05, "total_steps": 50}
SEVEN = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.Adamax,
    optim.RMSprop,
    optim.Adagrad,
)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4), nn.ReLU()
    )
    return quantize(net, "tr", Precision(2, 2))


def codes(net):
    return [x.w_quant.codes(x.weight.detach()) for x in quantized_layers(net).values()]


class Waits(TorchDispatchMode):
    """Count the operations that make the host wait for a device: reading it, or sizes it decides."""

    NAMES = frozenset({"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"})

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.NAMES or (name == "repeat_interleave" and "Tensor" in func._overloadname):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def waits(optimizer):
    optimizer.step()  # codes and states are made
    with Waits() as mode:
        optimizer.step()
    return mode.seen


@pytest.mark.parametrize("policy", ["tr", "coquant"])
@pytest.mark.parametrize("controller", ["eq11", "s1", "s2", "s3"])
@pytest.mark.parametrize("base", SEVEN)
def test_a_step_waits_for_nothing(base, controller, policy, monkeypatch):
    """What a GPU takes: nothing is read but what the base optimizer reads, its CPU step counts."""
    monkeypatch.setattr(sgd_step, "applies_to", lambda *_, **__: False)
    seen = []
    for scheduled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
        quantize(net, policy, Precision(4, 4))
        weights = [layer.weight for layer in quantized_layers(net).values()]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        if scheduled:
            made = t_variant(base)(
                weights, model=net, controller=controller, foreach=True, **OPTIONS
            )
        else:
            made = base(weights, lr=0.05, foreach=True)
        seen.append(waits(made))
    assert seen[1] == seen[0]


def test_the_count_of_waits_sees_one():
    with Waits() as mode:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
    assert mode.seen == {"_local_scalar_dense": 1, "nonzero": 1}


def _steps(base, policy, wanted):
    """Return weights and rates after six steps, and who took them."""
    use_fused_kernels(wanted)
    try:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 30, bias=False))
        policies = {"base": policy, "first": "target", "last": "target"}
        quantize(net, policies, Precision(3, 3))
        weights = [layer.weight for layer in quantized_layers(net).values()]
        options = {"momentum": 0.9, "weight_decay": 1e-2} if base is optim.SGD else {}
        optimizer = t_variant(base)(weights, model=net, **OPTIONS, **options)
        for _ in range(6):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        return weights, optimizer.rates(), optimizer._codes.kernels()
    finally:
        use_fused_kernels(None)


@pytest.mark.usefixtures("trusted_compiler")
@pytest.mark.parametrize("route", ["native", "fused"])
@pytest.mark.parametrize("base", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("policy", ["tr", "lsq"])
def test_one_kernel_a_layer_is_the_eager_step(policy, base, route, monkeypatch):
    others, expected, nobody = _steps(base, policy, False)
    assert nobody is None
    if route == "fused":
        monkeypatch.setattr(c_kernels, "supports_steps", lambda codes: False)
    weights, rates, kernels = _steps(base, policy, True)
    if kernels is None:
        pytest.skip("there is no compiler: steps are taken eagerly")
    assert kernels is {"native": c_kernels, "fused": torch_compiled}[route]
    assert rates["running"] == pytest.approx(expected["running"], rel=0.01)
    assert min(expected["running"]) > 0
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("trusted_compiler")
@pytest.mark.parametrize("route", ["native", "fused"])
def test_a_networks_steps_in_one_pass_equal_plain_ones(route, monkeypatch):
    monkeypatch.setattr(
        c_kernels, "supports_steps", lambda codes: torch_compiled.is_enabled() and route == "native"
    )
    monkeypatch.setattr(torch_compiled, "_wanted", True)
    if not torch_compiled.fused_kernels():
        pytest.skip("there is no C++ compiler: steps are taken eagerly")
    runs = []
    for on in (True, False):
        use_fused_kernels(on)
        torch.manual_seed(0)
        net = quantize(create_backbone("resnet10_slim"), "tr", Precision(2, 2))
        optimizer = t_variant(optim.SGD)(
            net.parameters(),
            model=net,
            lr=0.1,
            target=0.05,
            total_steps=20,
            momentum=0.9,
            weight_decay=1e-2,
        )
        generator = torch.Generator().manual_seed(1)
        for _ in range(6):
            for parameter in net.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            assert optimizer._is_fused() is on
        runs.append((net.state_dict(), optimizer.rates(), optimizer.state_dict()))
    for name, tensor in runs[0][0].items():
        torch.testing.assert_close(tensor, runs[1][0][name], rtol=1e-4, atol=1e-6)
    assert runs[0][1]["running"] == pytest.approx(runs[1][1]["running"], abs=1e-4)
    assert max(runs[0][1]["running"]) > 0
    assert all(code.dtype == torch.int8 for code in runs[0][2]["transition"]["codes"])


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("base", [optim.SGD, optim.AdamW])
def test_a_step_that_the_scaler_skips_moves_nothing(base, fused):
    net = network()
    optimizer = t_variant(base)(net.parameters(), model=net, fused=fused, **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    histories = []
    for t in range(8):
        before = (optimizer.rates(), codes(net), [p.detach().clone() for p in net.parameters()])
        optimizer.zero_grad()
        loss = net(torch.randn(16, 8)).square().mean()
        scaler.scale(loss).backward()
        if t in (3, 5):
            net[0].weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if t in (3, 5):
            assert optimizer.rates() == before[0]
            assert all(torch.equal(a, b) for a, b in zip(codes(net), before[1], strict=True))
            for a, b in zip(net.parameters(), before[2], strict=True):
                assert torch.equal(a, b)
        histories.append(optimizer.rates()["lr"])
    assert histories[-1] != histories[0] and scaler.get_scale() == 2.0**8


@pytest.mark.parametrize("base", [optim.SGD, optim.Adam])
def test_autocast_leaves_codes_to_the_latent_weights(base):
    net = network()
    optimizer = t_variant(base)(net.parameters(), model=net, **OPTIONS)
    for _ in range(3):
        before = codes(net)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(torch.randn(16, 8)).float().square().mean()
        loss.backward()
        optimizer.step()
        k = [(a != b).double().mean().item() for a, b in zip(codes(net), before, strict=True)]
        assert optimizer.rates()["rate"] == pytest.approx(k)


def _train_on_a_rank():
    torch.manual_seed(0)
    net = network()
    net(torch.randn(8, 8))  # activation scales, from the same images on both
    model = DistributedDataParallel(net)
    optimizer = t_variant(optim.SGD)(net.parameters(), model=net, momentum=0.9, **OPTIONS)
    generator = torch.Generator().manual_seed(distributed.rank())  # each rank sees other images
    for _ in range(8):
        optimizer.zero_grad()
        model(torch.randn(8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
    return {"rates": optimizer.rates(), "codes": optimizer.state_dict()["transition"]["codes"]}


def test_ranks_agree_on_codes_and_rates(tmp_path):
    one, two = in_processes(_train_on_a_rank, folder=tmp_path)
    assert one["rates"] == two["rates"] and max(one["rates"]["running"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(one["codes"], two["codes"], strict=True))
