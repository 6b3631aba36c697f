"""What a backbone would cost, counted without its weights."""

import pytest
import torch

from lowbit.backbones import create_backbone
from lowbit.backbones.costs import backbone_costs
from lowbit.quant import (
    Precision,
    bitops,
    calibrate,
    list_policies,
    quantize,
    set_precision,
    size_bytes,
)


@pytest.mark.parametrize("policy", list_policies())
def test_counts_what_the_real_network_would(policy):
    net, images = create_backbone("resnet10_slim"), torch.rand(2, 3, 32, 32)
    quantize(net, policy)
    calibrate(net, [images])
    set_precision(net, Precision(4, 3))
    expected = {"weight_bytes": size_bytes(net), "bit_operations": bitops(net, images[:1])}
    assert backbone_costs("resnet10_slim", policy, ["4w3a"], image_size=32) == {"4w3a": expected}


def test_without_a_policy_it_is_full_precision():
    net = create_backbone("resnet10_slim")
    found = backbone_costs("resnet10_slim", None, ["FP"], image_size=48)["FP"]
    assert found["weight_bytes"] == 4 * sum(p.numel() for p in net.parameters())
    assert found["bit_operations"] == bitops(net, torch.rand(1, 3, 48, 48))


def test_draws_nothing_random():
    before = torch.get_rng_state()
    backbone_costs("vit_tiny_patch16_224", "lsq", ["4w4a"], image_size=224)
    assert torch.equal(torch.get_rng_state(), before)
