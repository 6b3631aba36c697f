"""Bit-operations: every matrix product of a forward pass, at the bits of both operands."""

import copy
import itertools
from collections import Counter

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lowbit.backbones import create_backbone
from lowbit.quant import FP, Precision, bitops, calibrate, get_policy, quantize, set_precision
from lowbit.quant.bit_operations import matrix_products

IMAGES = torch.rand(1, 3, 32, 32)


def test_bitops_by_hand():
    """3x3 convolutions on 32x32: MACs = 9 C_in C_out H W; input-side bits are the layer's own."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()
    )
    first, second = 9 * 3 * 4 * 1024, 9 * 4 * 8 * 1024
    assert bitops(net, IMAGES) == (first + second) * 32 * 32
    quantize(net, "cq", Precision(4, 6))
    net(IMAGES)  # one training pass, for the running ranges
    assert bitops(net, IMAGES) == first * 32 * 32 + second * 4 * 6


def test_output_side_bits_reach_the_layers_behind():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1)
    )
    quantize(net, "ssql", Precision(2, 3))
    calibrate(net, [IMAGES])
    first, second = 9 * 3 * 4 * 1024, 9 * 4 * 8 * 256
    assert bitops(net, IMAGES) == first * 8 * 32 + second * 2 * 8  # the stem's output has 8 bits


@pytest.mark.parametrize("name", ["resnet18_cifar", "mobilenetv2_cifar"])
def test_bitops_fall_as_bits_fall(name):
    net = create_backbone(name)
    full = bitops(net, IMAGES)
    quantize(net, get_policy("ssql"))
    calibrate(net, [IMAGES])
    counts = []
    for bits in (8, 4, 2):
        set_precision(net, Precision(bits, bits))
        counts.append(bitops(net, IMAGES))
    assert full > counts[0] > counts[1] > counts[2]
    if name == "resnet18_cifar":  # all but the stem at b x b
        assert counts[0] < full / 12


def test_a_layer_called_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert bitops(nn.Sequential(layer, layer), torch.rand(2, 4)) == 2 * (2 * 4 * 4) * 1024


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
def test_macs_are_those_of_fvcore(name):
    from fvcore.nn import FlopCountAnalysis

    net, images = create_backbone(name).eval(), torch.rand(1, 3, 64, 64)
    counts = FlopCountAnalysis(net, (images,)).unsupported_ops_warnings(False)
    by_module = counts.uncalled_modules_warnings(False).by_module()
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert bitops(net, images) == 1024 * int(sum(by_module[name] for name in layers))


# Attention: the products QKᵀ and AV of H heads over N tokens are N² D MACs each.

TRANSFORMERS = {
    "vit_tiny_patch16_224": {"depth": 2, "img_size": 64},
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 64, "num_heads": 4, "img_size": 64},
    "eva02_tiny_patch14_224": {"depth": 1, "img_size": 56},
    "swin_tiny_patch4_window7_224": {"depths": (2, 1, 1, 1), "img_size": 224, "embed_dim": 24},
    "swinv2_tiny_window8_256": {"depths": (2, 1, 1, 1), "img_size": 256, "embed_dim": 24},
}


def flops(net, inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_macs_of_transformers_are_those_of_torchs_counter(name):
    """Torch's sees attention on the meta device, where no kernel is fused."""
    options = TRANSFORMERS[name]
    net = timm.create_model(name, num_classes=0, **options).eval()
    images = torch.rand(1, 3, options["img_size"], options["img_size"])
    expected = flops(copy.deepcopy(net).to("meta"), images.to("meta")) // 2
    assert sum(product.macs for product in matrix_products(net, images)) == expected


def test_attention_of_a_vit_small_is_a_twelfth_of_its_macs():
    """12 blocks of 197 tokens and 384 channels; the other layers have 4,241 million MACs."""
    with torch.device("meta"):
        net, images = create_backbone("vit_small_patch16_224"), torch.empty(1, 3, 224, 224)
    attention = 12 * 2 * 197**2 * 384
    layers = 196 * 768 * 384 + 12 * 197 * 12 * 384**2
    assert bitops(net, images) == 1024 * (layers + attention)
    quantize(net, "lsq", Precision(4, 4))
    by_attention = [p for p in matrix_products(net, images) if p.operands == (None, None)]
    assert sum(product.macs for product in by_attention) == attention + 196 * 768 * 384  # the stem
    everything_else = 16 * 12 * 197 * 12 * 384**2
    assert bitops(net, images) == everything_else + 1024 * (attention + 196 * 768 * 384)
    assert 1024 * attention > everything_else


def test_attention_within_windows_counts_its_windows_only():
    """A Swin block on H x W positions: each attends to the 49 of its window, shifted or not."""
    with torch.device("meta"):
        net = create_backbone("swin_tiny_patch4_window7_224")
        quantize(net, "lsq", Precision(2, 2))
        found = matrix_products(net, torch.empty(1, 3, 224, 224))
    stem = 56 * 56 * 48 * 96
    stages = [(2, 56, 96), (2, 28, 192), (6, 14, 384), (2, 7, 768)]
    attention = sum(blocks * 2 * side**2 * 49 * width for blocks, side, width in stages)
    assert sum(p.macs for p in found if p.operands == (None, None)) == stem + attention


class Attention(nn.Module):
    """One block, with whatever lies between `qkv` and the products."""

    def __init__(self, between=lambda q, k, v: (q, k, v), fused=True):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.between, self.fused = between, fused

    def forward(self, x):  # (N, L, 8), two heads
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = self.between(q, k, v)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * 4**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("policy", ["lsq", "ssql"])
def test_attention_counts_at_the_bits_of_its_operands(policy, fused):
    """ssql quantizes the output of `qkv`, of which Q, K and V are parts; softmax does not keep bits.

    What enters its layers is unquantized here, as each follows a norm or attention.
    """
    net = quantize(Attention(fused=fused), policy, Precision(3, 5))
    tokens = torch.rand(2, 7, 8)
    product = 2 * 7 * 7 * 8  # MACs of QKᵀ or AV
    layers = 2 * 7 * (8 * 24 + 8 * 8)
    expected = {
        "lsq": layers * 3 * 5 + 2 * product * 32 * 32,
        "ssql": layers * 3 * 32 + product * 5 * 5 + product * 32 * 5,
    }
    assert bitops(net, tokens) == expected[policy]
    set_precision(net, FP)
    assert bitops(net, tokens) == 1024 * (layers + 2 * product)


@pytest.mark.parametrize(
    ("between", "kept"),
    [
        (lambda q, k, v: (q * 0.5, torch.cat([k, k], 2), torch.cat([v, v], 2)), True),
        (lambda q, k, v: (q.roll(1, 2), k.contiguous(), v.flip(-1).clone()), True),
        (lambda q, k, v: (q + 1, k, v), False),
        (lambda q, k, v: (q.clone().add_(1), k, v), False),
        (lambda q, k, v: (F.normalize(q, dim=-1), k, v), False),
    ],
)
def test_bits_pass_through_moves_and_factors_only(between, kept):
    net = quantize(Attention(between), "ssql", Precision(3, 5))
    found = matrix_products(net, torch.rand(1, 6, 8))
    assert [product.operands[0] is not None for product in found] == [False, kept, False, False]


def test_a_quantized_copy_leaves_the_original_unquantized():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(4, 4)

        def forward(self, x):
            return self.proj(x) + x @ x.T

    net = quantize(Twice(), "lsq", Precision(2, 3))
    assert bitops(net, torch.rand(4, 4)) == 64 * 2 * 3 + 64 * 1024


@pytest.mark.parametrize("weights", [True, False])
def test_attention_in_one_call_is_seen(weights):
    """Torch computes a whole `nn.MultiheadAttention` in one call, in eval mode without gradients."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=weights)[0]

    macs = 2 * 5 * 8 * 32 + 2 * (2 * 5 * 5 * 8)
    assert bitops(Own(), torch.rand(2, 5, 8)) == 1024 * macs


def test_an_encoder_layer_of_torch_is_seen():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    fast = torch.backends.mha.get_fastpath_enabled()
    macs = 2 * 5 * 8 * 32 + 2 * (2 * 5 * 5 * 8) + 2 * 5 * (2 * 8 * 16)
    assert bitops(layer, torch.rand(2, 5, 8)) == 1024 * macs
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_weight_that_its_parent_reads_counts():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)

        def forward(self, x):
            return F.linear(x, self.fc.weight)

    assert bitops(Parent(), torch.rand(3, 4)) == 3 * 4 * 6 * 1024


def test_a_weight_that_its_layer_standardizes_counts_at_its_bits():
    from timm.layers import StdConv2d

    net = nn.Sequential(StdConv2d(3, 4, 1), nn.ReLU(), StdConv2d(4, 8, 1))
    quantize(net, "lsq", Precision(2, 3))
    assert bitops(net, IMAGES) == 1024 * (3 * 4 * 32 * 32 + 4 * 8 * 2 * 3)


@pytest.mark.parametrize("policy", ["lsq", "ssql"])
def test_counting_leaves_the_network_as_it_was(policy):
    net = quantize(Attention(), policy, Precision(4, 4))
    tokens = torch.rand(2, 7, 8)
    calibrate(net, [tokens])
    net.norm.eval()
    state, output = copy.deepcopy(net.state_dict()), net(tokens)
    bitops(net, tokens)
    assert torch.equal(net(tokens), output)
    assert net.training and not net.norm.training
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values(), strict=True)
    )
    hooks = itertools.chain.from_iterable(
        (*m._forward_hooks, *m._forward_pre_hooks) for m in net.modules()
    )
    assert not list(hooks)


@pytest.mark.parametrize("name", ["multi-head attention", "beit"])
def test_projections_that_no_layer_computes_count_at_their_bits(name):
    """Of L tokens of D channels: 3 L D² MACs to Q, K and V, computed by the module above, and L D² out."""
    L, D = 17, 8
    if name == "beit":
        options = {"depth": 1, "embed_dim": D, "num_heads": 2, "img_size": 64}
        block = Block(timm.create_model("beit_base_patch16_224", **options).blocks[0].attn, 1)
    else:
        block = Block(nn.MultiheadAttention(D, 2, batch_first=True), 3)
    x = torch.rand(1, L, D)
    quantize(block, "lsq")
    calibrate(block, [x])
    set_precision(block, Precision(2, 4))
    by_bits = Counter()
    for product in matrix_products(block, x):
        by_bits[product.bit_operations // product.macs] += product.macs
    assert by_bits == {2 * 4: 4 * L * D**2, 32 * 32: 2 * L**2 * D}


class Block(nn.Module):
    """An attention called on one input."""

    def __init__(self, attention, inputs):
        super().__init__()
        self.attention, self.inputs = attention, inputs

    def forward(self, x):
        return self.attention(*[x] * self.inputs)
