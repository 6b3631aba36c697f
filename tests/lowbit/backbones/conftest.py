"""Networks whose statistics and weights are all random, so that no wrong tensor goes unnoticed."""

import pytest
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lowbit.backbones import BACKBONES, create_backbone


def _randomized(net: nn.Module) -> nn.Module:
    """Fill every tensor at random and return the network in evaluation mode."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(5)
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        else:
            std = 1 / max(1, tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.1
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    return net.eval()


@pytest.fixture(scope="session")
def randomized():
    return _randomized


@pytest.fixture(scope="session")
def slim() -> nn.Module:
    return _randomized(create_backbone("resnet10_slim"))


@pytest.fixture(scope="session")
def resnet18() -> nn.Module:
    """Torchvision's, with its classifier."""
    return _randomized(torchvision.models.resnet18())


@pytest.fixture
def vit_nano(monkeypatch):
    """A ViT of two blocks, which the suite knows for one test."""

    def build() -> nn.Module:
        sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
        return VisionTransformer(num_classes=0, **sizes)

    monkeypatch.setitem(BACKBONES._obj_map, "vit_nano", build)
    return _randomized(build())


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
