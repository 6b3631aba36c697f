"""MoCo v3 on a small vision transformer: what is frozen, what is quantized, and that it trains."""

import pytest
import timm
import torch
from torch import nn

from lowbit.pretrain.frameworks import FrameworkOptions, create_framework
from lowbit.quant import FP, Precision, all_quantizers, get_policy, observe, quantized_layers


def _framework(policy=None, framework="moco_v3"):
    torch.manual_seed(0)
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)
    framework = create_framework(framework, backbone, FrameworkOptions(dim=16, hidden_dim=24))
    if policy is not None:
        framework.quantize(get_policy(policy))
    return framework.train()


def test_the_patch_embedding_stays_random_in_both_networks():
    framework = _framework()
    patch = framework.backbone.patch_embed.proj
    bound = (6 / (3 * 16 * 16 + 192)) ** 0.5  # Xavier's, of a linear layer on a patch
    assert 0.99 * bound < patch.weight.abs().max() <= bound and not patch.bias.any()
    assert not patch.weight.requires_grad and not patch.bias.requires_grad
    before = patch.weight.clone()
    _train(framework, FP)
    assert torch.equal(patch.weight, before)
    assert torch.equal(framework.momentum_encoder.backbone.patch_embed.proj.weight, before)
    frozen = [n for n, p in framework.encoder.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"]


def test_only_moco_v3_freezes_it():
    assert _framework(framework="byol").backbone.patch_embed.proj.weight.requires_grad


def _train(framework, precision):
    framework.begin_step(0.5)
    weights = [p for p in framework.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    a, b = (framework.embed(torch.rand(4, 3, 32, 32), precision) for _ in range(2))
    loss = framework.both_ways(a, b)
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in weights)
    optimizer.step()
    framework.end_step()


def test_heads_of_a_transformer_have_one_layer_and_one_norm_more():
    framework = _framework()
    kinds = [
        " ".join(type(m).__name__[0] for m in head)
        for head in (framework.encoder.projector, framework.predictor)
    ]
    assert kinds == ["L B R L B R L B", "L B R L B"]
    assert not framework.encoder.projector[-1].affine and not framework.predictor[-1].affine


def test_contrastive_quant_trains_it():
    framework = _framework("cq")
    _train(framework, Precision(6, 6))
    layers = quantized_layers(framework.encoder)
    assert set(layers) == {
        f"backbone.blocks.{i}.{name}"
        for i in range(2)
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


def test_ssql_quantizes_all_weights_of_the_blocks_and_the_patch_embedding_at_8_bits():
    framework = _framework("ssql")
    with torch.no_grad(), observe(framework.encoder):
        framework.embed(torch.rand(4, 3, 32, 32), FP).z  # noqa: B018
    _train(framework, Precision(3, 4))
    bits = {name: layer.w_quant.bits for name, layer in quantized_layers(framework.encoder).items()}
    expected = {"backbone.patch_embed.proj": 8}
    for i in range(2):
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            expected[f"backbone.blocks.{i}.{name}"] = 3
    expected |= {f"projector.{place}": 8 for place in (0, 3, 6)}
    assert bits == expected
    granularity = {q.channels is not None for q in all_quantizers(framework) if q.role == "weight"}
    assert granularity == {True}
    kept = (nn.LayerNorm, nn.Softmax)
    for module in framework.modules():  # layer norms, softmax and the predictor in full precision
        assert not (isinstance(module, kept) and hasattr(module, "a_quant"))
    assert not all_quantizers(framework.predictor)


@pytest.mark.parametrize("network", ["encoder", "momentum_encoder"])
def test_ssql_quantizes_what_leaves_the_gelus(network):
    network = getattr(_framework("ssql"), network)
    names = {n for n, m in network.named_modules() if getattr(m, "a_quant", None) is not None}
    assert {"backbone.blocks.0.mlp.act", "backbone.blocks.1.mlp.act"} <= names
