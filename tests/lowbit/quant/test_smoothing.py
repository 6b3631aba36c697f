"""Smoothing: exact in full precision, SmoothQuant's factors, and which layers get them."""

import copy
import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.quant import (
    FP,
    calibrate,
    dequantize,
    explain,
    get_policy,
    quantize,
    set_precision,
)
from lowbit.quant.smoothing import (
    scale_weights,
    smooth,
    smoothed_layers,
    smoothed_norms,
    smoothing_factors,
)

SMOOTH = {"base": "ptq", "smooth": 0.5}


def uneven(net, *, seed=0):
    """Give norms channels of very different magnitude, as trained transformers have."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.mul_(torch.randn(module.weight.shape, generator=generator).exp())
                module.bias.add_(torch.randn(module.bias.shape, generator=generator))
    return net.eval()


def images(count=2, side=32, *, dtype=torch.float32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def small_vit():
    torch.manual_seed(0)
    return uneven(
        timm.models.VisionTransformer(32, 8, embed_dim=24, depth=2, num_heads=2, num_classes=0)
    )


def small_convnext():
    torch.manual_seed(0)
    return uneven(
        timm.models.ConvNeXt(depths=(1,) * 4, dims=(8, 8, 16, 16), num_classes=0, ls_init_value=1)
    )


def applied(net):
    return {name for name, layer in smoothed_layers(net).items() if layer.smoothing.applied}


VIT = {f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("attn.qkv", "mlp.fc1")}
CONVNEXT = {f"stages.{i}.blocks.0.mlp.fc1" for i in range(4)}


@pytest.mark.parametrize("make, expected", [(small_vit, VIT), (small_convnext, CONVNEXT)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_full_precision_does_not_change(make, expected, dtype, tolerance):
    net, x = make().to(dtype), images(dtype=dtype)
    with torch.no_grad():
        before = net(x)
        quantize(net, SMOOTH)
        calibrate(net, [x])
        after = net(x)
    assert applied(net) == expected
    factors = torch.cat([smoothed_layers(net)[name].smoothing.factor for name in expected])
    assert factors.max() / factors.min() > 5  # something was moved
    assert (after - before).norm() <= tolerance * before.norm()


def _reference_factors(net, x, norm, readers, alpha):
    """SmoothQuant's Eq. 4 in float64, over all batches; readers of one norm share s."""
    seen = []
    handle = norm.register_forward_hook(lambda _, __, output: seen.append(output.double()))
    for batch in x:
        net(batch)
    handle.remove()
    factors = []
    for c in range(norm.weight.numel()):
        largest_x = max(float(output[..., c].abs().max()) for output in seen)
        largest_w = max(float(layer.weight[:, c].double().abs().max()) for layer in readers)
        factors.append(
            largest_x**alpha / largest_w ** (1 - alpha) if largest_x and largest_w else 1
        )
    return torch.tensor(factors, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
@torch.no_grad()
def test_factors_and_new_parameters_against_a_reference(alpha):
    net, x = small_vit().double(), [images(dtype=torch.float64), images(3, dtype=torch.float64)]
    net.blocks[0].norm1.weight[3] = net.blocks[0].norm1.bias[3] = 0  # a dead channel
    net.blocks[0].attn.qkv.weight[:, 5] = 0
    plain = copy.deepcopy(net)
    calibrate(quantize(net, {"base": "ptq", "smooth": alpha}), x)
    for norm, layer in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
        old_norm, old = plain.blocks[0].get_submodule(norm), plain.blocks[0].get_submodule(layer)
        s = _reference_factors(plain, x, old_norm, [old], alpha)
        new_norm, new = net.blocks[0].get_submodule(norm), net.blocks[0].get_submodule(layer)
        torch.testing.assert_close(new.smoothing.factor, s, rtol=1e-12, atol=0)
        torch.testing.assert_close(new_norm.weight, old_norm.weight / s, rtol=1e-12, atol=0)
        torch.testing.assert_close(new_norm.bias, old_norm.bias / s, rtol=1e-12, atol=0)
        torch.testing.assert_close(new.weight, old.weight * s, rtol=1e-12, atol=0)
        torch.testing.assert_close(new.bias, old.bias, rtol=0, atol=0)
    assert net.blocks[0].attn.qkv.smoothing.factor[[3, 5]].tolist() == [1, 1]
    assert net.blocks[0].mlp.fc2.smoothing.factor.eq(1).all()  # after GELU
    assert net.blocks[0].attn.proj.weight.equal(plain.blocks[0].attn.proj.weight)


def test_a_zero_or_infinite_maximum_keeps_a_channel():
    largest = torch.tensor([4.0, 0.0, 1.0, math.inf, math.nan])
    assert smoothing_factors(largest, torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]), 0.5).tolist() == [
        2.0,
        1.0,
        1.0,
        1.0,
        1.0,
    ]


class Readers(nn.Module):
    """One norm read by two linear layers, and by something else if asked."""

    def __init__(self, also=None):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
        self.also = also
        uneven(self)

    def forward(self, x):
        y = self.norm(self.stem(x))
        a, b = self.a(y), self.b(y)
        return (a + b, self.also(self, y)) if self.also else a + b


@torch.no_grad()
def test_readers_of_one_norm_share_a_factor():
    net, x = Readers().double(), torch.randn(5, 6, dtype=torch.float64)
    s = _reference_factors(net, [x], net.norm, [net.a, net.b], 0.5)
    before = net(x)
    calibrate(quantize(net, SMOOTH), [x])
    assert applied(net) == {"a", "b"}
    for layer in (net.a, net.b):
        torch.testing.assert_close(layer.smoothing.factor, s, rtol=1e-12, atol=0)
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "also",
    [
        lambda net, y: y,  # returned
        lambda net, y: y[:, None].flatten(1),  # returned, moved
        lambda net, y: y.mean(),
        lambda net, y: net.a.weight.sum(),
        lambda net, y: net.a(F.gelu(y)),  # the layer has another input too
        lambda net, y: net.b(y.flip(1)),  # channels moved
    ],
)
@torch.no_grad()
def test_a_norm_that_something_else_reads_is_left_alone(also):
    net, x = Readers(also), torch.randn(5, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calibrate(quantize(net, SMOOTH), [x])
    assert not applied(net)
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())


@torch.no_grad()
def test_an_unseen_reader_is_found_by_its_effect_and_undone():
    def unseen(net, y):
        with torch._C.DisableTorchFunction():
            return y.cumsum(1)

    net, x = Readers(unseen), torch.randn(5, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    quantize(net, SMOOTH)
    with pytest.raises(ValueError, match="nothing was smoothed"):
        calibrate(net, [x])
    assert not applied(net) and not smoothed_norms(net)
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())


class ReadsWeight(nn.Module):
    """Multiplies by a layer's weight itself, as BEiT's attention does."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(6), nn.Linear(6, 9, bias=False)
        uneven(self)

    def forward(self, x):
        return F.linear(input=self.norm(x), weight=self.qkv.weight, bias=x.new_ones(9))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        uneven(self)

    def forward(self, x):
        y = self.norm(x)
        return self.attention(y, y, y, need_weights=False)[0]


@pytest.mark.parametrize("make, name", [(ReadsWeight, "qkv"), (Attends, "attention.in_proj")])
@torch.no_grad()
def test_weights_that_another_module_reads(make, name):
    net, x = make().double(), torch.randn(2, 5, 6, dtype=torch.float64)
    before = net(x)
    calibrate(quantize(net, SMOOTH), [x])
    assert applied(net) == {name}
    torch.testing.assert_close(net(x), before, rtol=1e-11, atol=1e-11)
    set_precision(net, "8w8a")
    assert 0 < (net(x) - before).norm() < 0.2 * before.norm()


@torch.no_grad()
def test_a_second_calibration_keeps_the_factors():
    net = quantize(small_vit(), {"base": "ptq", "smooth": 0.8})
    calibrate(net, [images()])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calibrate(net, [images()])
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())


@torch.no_grad()
def test_learned_steps_start_from_the_new_weights():
    policy = {"base": "lsq", "smooth": 0.5}
    net = quantize(small_vit(), policy, "4w4a")
    calibrate(net, [images()])
    again = quantize(dequantize(copy.deepcopy(net)), "lsq", "4w4a")
    layer, other = net.blocks[0].attn.qkv, again.blocks[0].attn.qkv
    assert layer.weight.equal(other.weight)
    torch.testing.assert_close(layer.w_quant.scale, other.w_quant.scale)
    assert layer.w_quant.bits == 4


@torch.no_grad()
def test_a_saved_network_is_restored_by_its_state():
    net, x = quantize(small_vit(), SMOOTH), images()
    calibrate(net, [x])
    again = quantize(small_vit(), SMOOTH)
    again.load_state_dict(net.state_dict())
    for precision in (FP, "4w4a"):
        set_precision(net, precision)
        set_precision(again, precision)
        assert again(x).equal(net(x))


@torch.no_grad()
def test_weights_are_scaled_again_from_the_record():
    net, plain = quantize(small_vit(), SMOOTH), small_vit()
    calibrate(net, [images()])
    again = quantize(plain, SMOOTH)
    kept = {n: v for n, v in net.state_dict().items() if "smoothing" in n or "quant" in n}
    for name, norm in smoothed_norms(net).items():
        kept |= norm.state_dict(prefix=f"{name}.")
    again.load_state_dict(kept, strict=False)
    scale_weights(again)
    assert all(again.state_dict()[name].equal(value) for name, value in net.state_dict().items())


@torch.no_grad()
def test_outliers_cost_less_when_they_are_smoothed():
    torch.manual_seed(0)
    net, x = Attends(), torch.randn(8, 5, 6)
    net.norm.weight.fill_(1)
    net.norm.bias.zero_()
    net.norm.weight[2] = 1000
    net.attention.in_proj_weight[:, 2] /= 1000
    full, errors = net(x), {}
    for policy in ("ptq", SMOOTH):
        copied = quantize(copy.deepcopy(net), policy)
        calibrate(copied, [x])
        set_precision(copied, "8w8a")
        errors[str(policy)] = float((copied(x) - full).norm())
    assert errors[str(SMOOTH)] < 0.2 * errors["ptq"]


def test_without_images_nothing_is_smoothed():
    net = quantize(small_vit(), SMOOTH)
    with pytest.raises(ValueError, match="calibration got no images"):
        calibrate(net, [])
    assert smooth(quantize(small_vit(), "ptq"), [images()]) == 0


def test_explain_names_smoothed_layers():
    net = quantize(small_vit(), SMOOTH)
    calibrate(net, [images()])
    assert {row.name for row in explain(net) if "smoothed" in row.why} == VIT


def test_it_is_part_of_the_fingerprint():
    plain = get_policy("ptq")
    prints = {get_policy({"base": "ptq", "smooth": a}).fingerprint for a in (0.5, 0.8, 1, 1.0)}
    assert len(prints | {plain.fingerprint}) == 4
    assert get_policy({"base": "ptq", "smooth": None}).fingerprint == plain.fingerprint
    smoothed = get_policy(SMOOTH)
    assert get_policy(smoothed.to_dict()) == smoothed
    data = plain.to_dict()
    del data["smooth"]  # as results before the field have it
    assert get_policy(data).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base": "ptq", "smooth": 1.5}, "not a number from 0 to 1; no policy was made"),
        ({"base": "ptq", "smooth": True}, "not a number from 0 to 1"),
        ({"base": "ptq", "smooth": "0.5"}, "not a number from 0 to 1"),
        ({"base": "ssql", "smooth": 0.5}, "this policy quantizes outputs; no policy was made"),
    ],
)
def test_values_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        get_policy(change)


def test_layers_kept_in_full_precision_are_not_smoothed_for_themselves():
    net = quantize(small_vit(), {**SMOOTH, "rules": {"blocks.0.attn.qkv": "fp"}})
    calibrate(net, [images()])
    assert applied(net) == VIT - {"blocks.0.attn.qkv"}
    assert "blocks.0.norm1" not in smoothed_norms(net)


def test_a_network_without_such_norms_is_quantized_as_without_smoothing():
    torch.manual_seed(0)
    nets = [create_backbone("resnet10_slim").eval()]
    nets.append(copy.deepcopy(nets[0]))
    x = images()
    for net, policy in zip(nets, ("ptq", SMOOTH), strict=True):
        calibrate(quantize(net, policy), [x])
        set_precision(net, "4w4a")
    assert nets[0](x).equal(nets[1](x))


def test_that_nothing_was_smoothed_is_said(caplog):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    calibrate(quantize(net, SMOOTH), [torch.rand(4, 6)])
    assert "nothing was smoothed" in caplog.text
