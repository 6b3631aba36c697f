"""Networks without values are the real ones but for their values."""

import pytest
import torch

from lowbit.backbones import create_backbone
from lowbit.backbones.networks.without_values import without_values


@pytest.mark.parametrize("name", ["resnet10_slim", "mobilenetv2_cifar", "vit_tiny_patch16_224"])
def test_shapes_are_a_real_networks_and_nothing_is_drawn(name):
    chance = torch.get_rng_state()
    with without_values():
        empty = create_backbone(name)
    assert torch.equal(torch.get_rng_state(), chance)
    expected = create_backbone(name).state_dict()
    found = empty.state_dict()
    assert all(tensor.is_meta for tensor in found.values())
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    kept = [(n, p.requires_grad) for n, p in empty.named_parameters()]
    assert kept == [(n, p.requires_grad) for n, p in create_backbone(name).named_parameters()]


def test_tensors_elsewhere_have_values():
    with without_values():
        assert torch.zeros(2, device="cpu").fill_(3).tolist() == [3, 3]
        weight = torch.empty(2, 3, device="cpu")
        assert torch.nn.init.constant_(weight, 5.0) is weight and (weight == 5).all()
