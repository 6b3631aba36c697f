"""The fused kernels compute what the eager route computes, with one compilation for all shapes."""

import pytest
import torch

from lowbit.backbones import create_backbone
from lowbit.quant import (
    Precision,
    calibrate,
    fused_kernels,
    get_policy,
    quantize,
    set_precision,
    use_fused_kernels,
)
from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.kernels.learned_scale_quantize import interval, lsq
from lowbit.quant.kernels.range_quantize import fake_quantize

pytestmark = pytest.mark.usefixtures("trusted_compiler")

OPERATORS = {
    "lsq": lambda v, s, b: lsq(v, s, 2 ** (b - 1), 2 ** (b - 1) - 1, 0.1),
    "affine": lambda v, s, b: fake_quantize(v, s, None, -(2 ** (b - 1)), 2 ** (b - 1) - 1),
    "interval": lambda v, s, b: interval(v, s, -(2 ** (b - 1)), 2 ** (b - 1) - 1, 2 ** (b - 1)),
}


@pytest.fixture
def switch(monkeypatch):
    monkeypatch.setattr(c_kernels, "supports", lambda *tensors, scales=(): False)
    before = torch_compiled._wanted
    use_fused_kernels(True)
    if not fused_kernels():
        use_fused_kernels(before)
        pytest.skip("there is no C++ compiler: quantizers run eagerly")
    yield use_fused_kernels
    use_fused_kernels(before)


def test_are_used_on_cuda_unless_told_otherwise(switch, monkeypatch):
    monkeypatch.setattr(torch_compiled, "_can_compile", lambda kind: True)
    for wanted, expected in ((None, (True, False)), (True, (True, True)), (False, (False, False))):
        switch(wanted)
        assert (fused_kernels("cuda"), fused_kernels("cpu")) == expected


def test_a_missing_compiler_is_said_once_and_leaves_the_eager_route(switch, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    torch_compiled._can_compile.cache_clear()
    try:
        assert not fused_kernels() and not fused_kernels()
        assert caplog.text.count("C++ compiler") == 1
    finally:
        monkeypatch.undo()
        torch_compiled._can_compile.cache_clear()


@pytest.mark.parametrize(
    ("capability", "bits"), [("AVX2", 256), ("AVX512", 512), ("DEFAULT", None)]
)
def test_kernels_of_machines_that_share_a_cache_are_told_apart_by_vector_width(
    capability, bits, monkeypatch
):
    options = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(
        torch, "compile", lambda function, **chosen: options.append(chosen["options"]) or function
    )
    assert torch_compiled.kernel(torch.abs)(torch.tensor(-1.0)) == 1
    assert options == [{"cpp.simdlen": bits}]


def run(operator, v, s, bits, upstream):
    v, s = v.clone(memory_format=torch.preserve_format).requires_grad_(), s.clone().requires_grad_()
    y = OPERATORS[operator](v, s, bits)
    return y.detach(), *torch.autograd.grad(y, (v, s), upstream)


def graphs_compiled():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_equals_eager_for_every_layout_and_bit_width(operator, switch):
    torch._dynamo.utils.counters.clear()
    tensors = {
        "dense": (torch.randn(6, 4, 5, 5), torch.tensor([0.2])),
        "channels_last": (
            torch.randn(6, 4, 5, 5).to(memory_format=torch.channels_last),
            torch.tensor([0.2]),
        ),
        "a scale a channel": (torch.randn(6, 4, 3, 3), torch.rand(6, 1, 1, 1) + 0.1),
        "a scale a channel, pointwise": (torch.randn(5, 4, 1, 1), torch.rand(5, 1, 1, 1) + 0.1),
        "a scale a channel, linear": (torch.randn(9, 4), torch.rand(9, 1) + 0.1),
        "linear": (torch.randn(7, 11), torch.tensor([0.3])),
        "tokens": (torch.randn(3, 5, 8), torch.tensor([0.3])),
        "not dense": (torch.randn(6, 8)[:, ::2], torch.tensor([0.3])),
    }
    for name, (v, s) in tensors.items():
        upstream = torch.randn_like(v)
        for bits in (2, 4, 8):
            switch(True)
            ours = run(operator, v, s, bits, upstream)
            switch(False)
            for a, b in zip(ours, run(operator, v, s, bits, upstream), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
                assert a.stride() == b.stride() or name == "not dense"
    # Forward and backward, of one scale and of many; torch compiles no function more than eight times.
    assert graphs_compiled() <= 4


def test_one_compilation_serves_every_shape_and_bit_width(switch):
    switch(True)
    torch._dynamo.utils.counters.clear()
    s = torch.tensor([0.2])
    for n in (64, 100, 2048):
        for bits in (2, 5, 8):
            run("lsq", torch.randn(n, 3), s, bits, torch.randn(n, 3))
    assert graphs_compiled() <= 3  # forward, and backward with a short sum and a long one


def test_a_network_trains_alike(switch):
    images = torch.randn(4, 3, 32, 32)
    for policy in ("lsq", "tr", "ssql"):
        grads = []
        for on in (True, False):
            switch(on)
            torch.manual_seed(0)
            net = quantize(create_backbone("resnet10_slim").eval(), get_policy(policy))
            calibrate(net, [images])
            set_precision(net, Precision(8, 8))
            net(images).square().sum().backward()
            grads.append(net.layer4[0].conv2.weight.grad)
        cosine = torch.nn.functional.cosine_similarity(*(g.flatten() for g in grads), dim=0)
        assert cosine > 0.999, policy
