"""Quantizing whole networks in place."""

import copy
import functools
import itertools
import pickle

import pytest
import timm
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant import (
    FP,
    Precision,
    all_quantizers,
    calibrate,
    dequantize,
    explain,
    get_policy,
    list_policies,
    observe,
    quantize,
    quantized_layers,
    reuse_weights,
    scales,
    set_precision,
)

IMAGES = 0.3 * torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@functools.cache
def _network(name):
    torch.manual_seed(0)
    return create_backbone(name).eval()


def network(name="resnet10_slim"):
    return copy.deepcopy(_network(name))


@pytest.mark.parametrize("policy", list_policies())
@pytest.mark.parametrize("name", ["resnet10_slim", "resnet20", "mobilenetv2_cifar"])
def test_full_precision_is_bit_equal_and_names_stay(policy, name):
    net, images = network(name), IMAGES[..., ::2, ::2]
    names, full = set(net.state_dict()), net(images)
    quantize(net, policy)
    calibrate(net, [images])
    assert torch.equal(net(images), full)
    added = set(net.state_dict()) - names
    assert names <= set(net.state_dict())
    own = {"q_scale", "q_state", "q_min", "q_max", "q_offset", "q_lower", "q_starts"}
    assert {k.rpartition(".")[2] for k in added} <= own
    set_precision(net, "4w4a")
    assert not torch.equal(net(images), full)
    set_precision(net, FP)
    assert torch.equal(net(images), full)


def test_ssql_places_what_the_paper_places_in_resnet18():
    """SPEC A.4: 20 quantized convolutions, 17 activation quantizers, stem 8w8a, downsample in b_w."""
    net = quantize(network("resnet18"), "ssql", Precision(3, 5))
    layers = quantized_layers(net)
    activations = [q for q in all_quantizers(net) if q.role == "activation"]
    assert len(layers) == 20 and len(activations) == 17
    assert layers["conv1"].w_quant.bits == 8 and net.act1.a_quant.bits == 8
    assert {layer.w_quant.bits for name, layer in layers.items() if name != "conv1"} == {3}
    assert {q.bits for q in activations if q is not net.act1.a_quant} == {5}
    assert "layer2.0.downsample.0" in layers


def test_ssql_quantizes_what_each_layer_of_a_transformer_hands_on():
    """SPEC A.7: outputs of qkv, proj, fc2 and GELU at the target bits, patch embedding 8w8a."""
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
    rows = {row.name: row for row in explain(quantize(net, "ssql", Precision(3, 5)))}
    bits = {name: (row.weight_bits, row.activation_bits) for name, row in rows.items()}
    for block in ("blocks.0", "blocks.1"):
        for layer in ("attn.qkv", "attn.proj", "mlp.fc2"):
            assert bits[f"{block}.{layer}"] == (3, 5)
        assert bits[f"{block}.mlp.fc1"] == (3, 32)  # its GELU is what leaves
        assert bits[f"{block}.mlp.act"] == (32, 5)
    assert bits["patch_embed.proj"] == (8, 8) and bits["head"] == (32, 32)
    assert len(bits) == 12

    leaving = {}
    layer = net.blocks[0].attn.qkv
    layer.register_forward_hook(lambda module, args, out: leaving.update(qkv=out))
    calibrate(net, [torch.randn(2, 3, 32, 32)])
    net.eval()(torch.randn(2, 3, 32, 32))
    assert leaving["qkv"].unique().numel() <= 2**5


def test_a_bare_head_leaves_the_stem_at_its_own_bits():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(4, 2))
    rows = {r.name: r for r in explain(quantize(net, "ssql", Precision(3, 5)))}
    assert rows["2"].activation_bits == 8 and rows["4"].activation_bits == 5


def test_ssql_quantizes_the_block_output_after_the_sum():
    net = quantize(network(), "ssql", Precision(4, 4))
    calibrate(net, [IMAGES])
    seen = []
    net.layer3[0].register_forward_hook(lambda m, i, o: seen.append(o))
    net(IMAGES)
    assert seen[0].unique().numel() <= 16


def test_ssql_leaves_weights_on_the_grid_of_each_channel():
    """[T:A14] at XwYa a weight channel has at most 2^X values."""
    net = quantize(network(), "ssql", Precision(3, 3))
    for name, layer in quantized_layers(net).items():
        bits = 8 if name == "conv1" else 3
        for channel in layer.quantized_weight().detach():
            assert channel.unique().numel() <= 2**bits


@pytest.mark.parametrize("policy", ["lsq", "tr", "cq"])
def test_input_side_policies_leave_the_first_convolution_alone(policy):
    net = quantize(network(), policy, Precision(4, 4))
    assert "conv1" not in quantized_layers(net)
    assert type(net.conv1) is nn.Conv2d
    assert len(quantized_layers(net)) == 11  # 4 blocks of two, three shortcuts


def test_classifier_and_heads_follow_their_rules():
    net = timm.create_model("resnet18", num_classes=10)
    assert "fc" not in quantized_layers(quantize(copy.deepcopy(net), "ssql"))
    eight = quantize(net, {"base": "lsq", "first": 8, "last": 8}, Precision(2, 2))
    assert quantized_layers(eight)["fc"].w_quant.bits == 8
    assert quantized_layers(eight)["layer1.0.conv1"].w_quant.bits == 2


def test_vision_transformers_are_quantized_too():
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2).eval()
    images = torch.rand(2, 3, 32, 32)
    full = net(images)
    quantize(net, "ssql")
    calibrate(net, [images])
    assert torch.equal(net(images), full)
    assert len(quantized_layers(net)) == 1 + 2 * 4


def test_a_layer_with_norm_and_activation_inside_keeps_them():
    class ConvNormReLU(nn.Conv2d):  # as Detectron2's Conv2d does
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.norm = nn.BatchNorm2d(self.out_channels)

        def forward(self, x):
            x = nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            return self.norm(x).relu()

    net = nn.Sequential(ConvNormReLU(3, 4, 3), ConvNormReLU(4, 4, 3)).eval()
    full = net(IMAGES)
    keys = list(net.state_dict())
    quantize(net, {"base": "lsq", "first": 4}, FP)
    calibrate(net, [IMAGES])
    assert torch.equal(net(IMAGES), full) and set(keys) <= set(net.state_dict())
    set_precision(net, "2w2a")
    low = net(IMAGES)
    assert low.min() >= 0 and not torch.equal(low, full)
    assert isinstance(net[0].weight, nn.Parameter)


@pytest.mark.parametrize("policy", list_policies())
def test_copies_and_pickles(policy):
    net = quantize(network(), policy, Precision(4, 4))
    calibrate(net, [IMAGES])
    expected = net(IMAGES)
    assert torch.equal(copy.deepcopy(net)(IMAGES), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(IMAGES), expected)


@pytest.mark.parametrize("policy", list_policies())
def test_dequantize_gives_the_original_tree_back(policy):
    net = network()
    types = {name: type(module) for name, module in net.named_modules()}
    full, keys = net(IMAGES), list(net.state_dict())
    dequantize(quantize(net, policy, Precision(2, 2)))
    assert {name: type(module) for name, module in net.named_modules()} == types
    assert torch.equal(net(IMAGES), full) and list(net.state_dict()) == keys


def test_calibration_moves_neither_norms_nor_modes_nor_bits():
    net = quantize(network().train(), "ssql", Precision(4, 4))
    buffers = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    assert calibrate(net, [IMAGES, IMAGES]) == 6
    assert calibrate(net, [IMAGES, IMAGES], images=4) == 4
    assert all(torch.equal(net.state_dict()[k], v) for k, v in buffers.items())
    assert net.training and quantized_layers(net)["layer1.0.conv1"].w_quant.bits == 4


def test_calibration_ranges_are_those_of_the_full_precision_network():
    net = network()
    seen = []
    net.layer1[0].act2.register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    net(IMAGES)
    quantize(net, "ssql", Precision(2, 2))
    calibrate(net, [IMAGES[:1], IMAGES[1:]])
    q = net.layer1[0].act2.a_quant
    assert q.q_max.item() == pytest.approx(seen[0].max().item(), rel=1e-6)


def test_observe_runs_in_full_precision_and_gives_the_bits_back():
    net = network()
    full = net(IMAGES)
    quantize(net, "ssql", Precision(3, 3))
    with observe(net):
        assert torch.equal(net(IMAGES), full)
    assert quantized_layers(net)["layer1.0.conv1"].w_quant.bits == 3
    assert not torch.equal(net(IMAGES), full)


def test_weights_are_quantized_once_for_all_views_of_a_step():
    net = quantize(network().train(), "cq", Precision(4, 4))
    layer = net.layer1[0].conv1
    calls = []
    layer.w_quant.register_forward_hook(lambda *_: calls.append(1))
    with reuse_weights(net):
        loss = net(IMAGES).square().sum() + net(2 * IMAGES).square().sum()
        set_precision(net, "8w8a")
        loss = loss + net(IMAGES).square().sum()
    assert len(calls) == 2  # once for each bit-width
    loss.backward()
    reused = layer.weight.grad.clone()
    net.zero_grad()
    for module in net.modules():  # the same sum without reuse
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0
    set_precision(net, "4w4a")
    loss = net(IMAGES).square().sum() + net(2 * IMAGES).square().sum()
    set_precision(net, "8w8a")
    (loss + net(IMAGES).square().sum()).backward()
    torch.testing.assert_close(layer.weight.grad, reused, rtol=1e-4, atol=1e-4)
    assert len(calls) == 5


def test_error_falls_with_bits():
    """[T:B] error ∝ 2^-q."""
    net = network()
    full = net(IMAGES)
    quantize(net, "cq")
    calibrate(net, [IMAGES])
    errors = []
    for bits in (4, 6, 8, 10):
        set_precision(net, Precision(bits, bits))
        errors.append((net(IMAGES) - full).norm().item())
    assert all(2.5 < a / b < 6.5 for a, b in itertools.pairwise(errors))


def test_learned_scales_receive_gradients():
    net = quantize(network().train(), "lsq", Precision(4, 4))
    calibrate(net, [IMAGES])
    assert len(scales(net)) == 22
    net(IMAGES).square().sum().backward()
    assert all(s.grad is not None and s.grad.abs() > 0 for s in scales(net))
    assert len(scales(quantize(network(), "tr"))) == 11  # weight scales are frozen


def test_a_quantized_checkpoint_resumes():
    net = quantize(network(), "lsq", Precision(4, 4))
    calibrate(net, [IMAGES])
    other = quantize(create_backbone("resnet10_slim").eval(), "lsq", Precision(4, 4))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(IMAGES), net(IMAGES))


def test_quantizing_twice_by_one_policy_is_quantizing_once():
    net = quantize(network(), "ssql", Precision(4, 4))
    calibrate(net, [IMAGES])
    out, modules, state = net(IMAGES), dict(net.named_modules()), net.state_dict()
    assert quantize(net, "ssql", Precision(4, 4)) is net
    assert dict(net.named_modules()) == modules and net.state_dict().keys() == state.keys()
    assert torch.equal(net(IMAGES), out)
    quantize(net, "ssql")  # at full precision now
    assert torch.equal(net(IMAGES), dequantize(net)(IMAGES))


def test_quantizing_by_a_second_policy_is_refused():
    net = quantize(network(), "ssql")
    with pytest.raises(ValueError, match="already quantized, by another policy"):
        quantize(net, "lsq")


def test_a_policy_that_finds_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing was quantized"):
        quantize(network(), {"base": "lsq", "rules": {"*": "fp"}})


def test_calibrating_on_nothing_is_refused():
    with pytest.raises(ValueError, match="no image"):
        calibrate(quantize(network(), get_policy("ssql")), [])


def test_output_scale_restores_what_the_quantizers_took_away():
    """TR: a fixed output range needs a learned scale where no normalization follows."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).eval()
    full = net[:3](IMAGES)
    quantize(net, {"base": "tr", "first": "target"}, Precision(8, 8))
    calibrate(net, [IMAGES])
    assert net[0].out_scale is not None and net[2].out_scale is not None  # both have a bias
    low = net[:3](IMAGES)
    assert (low - full).norm() < 0.1 * full.norm()
    assert net[2].out_scale.q_scale in set(scales(net))
    other = quantize(network("resnet20"), "tr")
    assert all(
        layer.out_scale is None for layer in quantized_layers(other).values()
    )  # norms follow
