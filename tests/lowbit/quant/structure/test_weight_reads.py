"""Modules that compute with a layer's weight themselves are computed quantized."""

import copy
import math
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lowbit.quant import (
    FP,
    all_quantizers,
    calibrate,
    dequantize,
    quantize,
    quantized_layers,
    set_precision,
)
from lowbit.quant.structure.weight_reads import ReadsWeights, reads_weights

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
_TIMM = {"embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5, "mlp_ratio": 2.0}
_SWIN = {"embed_dim": 16, "depths": (1,), "num_heads": (2,), "num_classes": 5, "mlp_ratio": 2.0}


def _beit():
    return timm.models.beit.Beit(img_size=16, patch_size=8, init_values=None, **_TIMM)


def _eva02():
    return timm.models.eva.Eva(
        img_size=16, patch_size=8, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, **_TIMM
    )


def _swin_v2():
    kind = timm.models.swin_transformer_v2.SwinTransformerV2
    return kind(img_size=16, patch_size=4, window_size=2, **_SWIN)


def _torchvision_swin(block=None):
    block = block or torchvision.models.swin_transformer.SwinTransformerBlock
    own = {"patch_size": [4, 4], "window_size": [2, 2], "block": block}
    if block is torchvision.models.swin_transformer.SwinTransformerBlockV2:
        own["downsample_layer"] = torchvision.models.swin_transformer.PatchMergingV2
    sizes = _SWIN | {"depths": [2], "num_heads": [2]}  # it divides by the depth less one
    return torchvision.models.SwinTransformer(**own, **sizes)


def _torchvision_swin_v2():
    return _torchvision_swin(torchvision.models.swin_transformer.SwinTransformerBlockV2)


def _torchvision_vit():
    sizes = {"image_size": 16, "patch_size": 8, "num_layers": 1, "num_heads": 2}
    return torchvision.models.VisionTransformer(**sizes, hidden_dim=16, mlp_dim=32, num_classes=5)


class Encoder(nn.Module):
    """Images cut into patches, torch's own encoder, and a classifier."""

    def __init__(self, **options):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x, padding=None):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


def _helper(layer, x):
    return F.conv2d(x, getattr(layer, "weight"), layer.bias, padding=1)  # noqa: B009


class Reads(nn.Module):
    """A user's own module: a loop over layers, a helper function, a call between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.convs:
            x = _helper(conv, x)
        return self.last(x).mean((2, 3))


# Network, and the number of its quantized layers.
NETWORKS = {
    "beit": (_beit, 4),
    "eva02": (_eva02, 5),
    "swin_v2": (_swin_v2, 6),
    "torchvision swin": (_torchvision_swin, 8),
    "torchvision swin_v2": (_torchvision_swin_v2, 12),
    "torchvision vit": (_torchvision_vit, 4),
    "encoder": (Encoder, 4),
    "own": (Reads, 3),
}


def network(name):
    torch.manual_seed(0)
    net = NETWORKS[name][0]().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.3)
    return net


def low_bit(name, policy="lsq", precision="3w3a"):
    net = quantize(network(name), policy)
    calibrate(net, [IMAGES])
    set_precision(net, precision)
    with torch.no_grad():
        net(IMAGES)  # output scales are set by the first low-bit pass
    return net


@pytest.mark.parametrize("policy", ["lsq", "ssql", "tr"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_quantizer_told_acts_on_the_output(name, policy):
    net = low_bit(name, policy, "2w2a")
    with torch.no_grad():
        low = net(IMAGES)
        for layer in quantized_layers(net).values():
            for q in (layer.w_quant, layer.a_quant):
                if q is not None and q.bits == 2:
                    q._bits = 32
                    assert not torch.equal(net(IMAGES), low)
                    q._bits = 2
    if policy == "lsq":
        assert len(quantized_layers(net)) == NETWORKS[name][1]


@pytest.mark.parametrize("name", NETWORKS)
def test_full_precision_is_bit_equal_with_and_without_gradients(name):
    net = network(name)
    names, full = list(net.state_dict()), net(IMAGES)
    with torch.no_grad():
        fused = net(IMAGES)
    parameters = [id(p) for p in net.parameters()]
    quantize(net, "lsq")
    calibrate(net, [IMAGES])
    set_precision(net, "2w2a")
    set_precision(net, FP)
    assert torch.equal(net(IMAGES), full)
    with torch.no_grad():
        assert torch.equal(net(IMAGES), fused)
    assert [n for n in net.state_dict() if "_quant" not in n] == names
    assert [id(p) for n, p in net.named_parameters() if "_quant" not in n] == parameters
    dequantize(net)
    assert list(net.state_dict()) == names and torch.equal(net(IMAGES), full)
    assert not any(isinstance(m, ReadsWeights) for m in net.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_and_pickles_compute_the_same_and_go_their_own_way(name):
    net = low_bit(name)
    low = net(IMAGES)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(IMAGES), low)
        with torch.no_grad():
            for layer in quantized_layers(other).values():
                layer.weight.neg_()
        assert not torch.equal(other(IMAGES), low) and torch.equal(net(IMAGES), low)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_input_is_observed_and_quantized_once(name):
    """Also with weights off, where a layer's own product is one with the weight itself."""
    net = low_bit(name, precision="32w3a")
    calls = {q: 0 for q in all_quantizers(net) if q.role == "activation"}

    def count(q, args, output):
        calls[q] += 1

    for q in calls:
        q.register_forward_hook(count)
    net(IMAGES)
    assert set(calls.values()) == {1}


def test_the_layer_computes_what_its_parent_asked_for():
    """One attention of BEiT against the same formula with the quantizers written out."""
    net = low_bit("beit", precision="4w4a")
    attention = net.blocks[0].attn
    x = torch.randn(2, 5, 16)
    qkv, proj = attention.qkv, attention.proj
    bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    packed = F.linear(qkv.a_quant(x), qkv.w_quant(qkv.weight), bias)
    q, k, v = packed.reshape(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(8)
    if attention.relative_position_bias_table is not None:
        scores = scores + attention._get_rel_pos_bias()
    expected = proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 16))
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_encoder_layers_are_scored_as_they_are_trained(options):
    torch.manual_seed(0)
    net = Encoder(**options)
    quantize(net, "lsq")
    calibrate(net, [IMAGES])
    set_precision(net, "2w2a")
    net.eval()
    padding = torch.zeros(2, 16, dtype=torch.bool)
    padding[1, 9:] = True
    for mask in (None, padding):
        trained = net(IMAGES, mask)
        with torch.no_grad():
            torch.testing.assert_close(net(IMAGES, mask), trained)
        set_precision(net, FP)
        assert (net(IMAGES, mask) - trained).abs().max() > 0.01
        set_precision(net, "2w2a")


def test_gradients_reach_weights_and_scales_through_a_read():
    net = low_bit("torchvision swin").train()
    net(IMAGES).square().sum().backward()
    for name, layer in quantized_layers(net).items():
        for p in (layer.weight, layer.w_quant.q_scale, layer.a_quant.q_scale):
            assert p.grad is not None and p.grad.abs().max() > 0, name


def test_autocast_computes_the_products_in_half_precision():
    net = low_bit("beit", precision="8w8a")
    full = net(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(IMAGES)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() < 0.1 * full.norm()


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_networks_compute_what_eager_ones_do(name, gradients):
    net = low_bit(name)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(compiled(IMAGES), net(IMAGES))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["beit", "encoder", "torchvision vit"])
def test_exported_networks_compute_what_eager_ones_do(name):
    net = low_bit(name)
    exported = torch.export.export(net, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), net(IMAGES))


def test_only_modules_that_compute_with_a_weight_are_converted():
    class Asks(nn.Module):
        def forward(self, x):
            return self.fc(x.to(self.fc.weight.dtype))

    class Helps(nn.Module):
        def forward(self, x):
            return _helper(self.conv, x)

    class Inherits(Helps):
        def forward(self, x):
            return super().forward(x) + 1

    assert not reads_weights(Asks) and reads_weights(Helps) and reads_weights(Inherits)
    for name in (
        "resnet18",
        "mobilenetv2_100",
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
    ):
        with torch.device("meta"):
            net = timm.create_model(name)
        assert not any(reads_weights(type(m)) for m in net.modules()), name
