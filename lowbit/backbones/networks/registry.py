"""Registry of backbones, which map images to pooled features and have no classifier."""

import timm
import torch
from fvcore.common.registry import Registry
from torch import nn

from lowbit.backbones.networks.mobilenetv2_kuangliu import KuangliuMobileNetV2
from lowbit.backbones.networks.reactnet import ReActNet
from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.common.suggest import did_you_mean

BACKBONES = Registry("BACKBONES")
BACKBONES.__doc__ = """
Networks that the suite knows by name. Register a function without arguments whose name
is used in recipes. It returns an `nn.Module` with random weights that

1. maps images (N, 3, H, W) to pooled features (N, num_features), `num_features` being an attribute;
2. has one module per activation, used once (a policy quantizes some of them);
3. for detection: has `feature_info`, a list of {num_chs, reduction, module}, and
   `forward_intermediates(x, indices, intermediates_only=True, stop_early=True)`, as in timm.
"""


@BACKBONES.register()
def resnet10_slim() -> nn.Module:
    """Four stages of one block, widths 16-32-64-128, strides 2-4-8-16: quick on a CPU."""
    return SmallResNet((1, 1, 1, 1), (16, 32, 64, 128), stem_stride=2, shortcut="conv")


def _cifar_three_stage(blocks: int) -> nn.Module:
    return SmallResNet((blocks,) * 3, (16, 32, 64), stem_stride=1, shortcut="pad")


@BACKBONES.register()
def resnet20() -> nn.Module:
    """CIFAR ResNet-20 (He et al. 2016, n=3)."""
    return _cifar_three_stage(3)


@BACKBONES.register()
def resnet74() -> nn.Module:
    """CIFAR ResNet-74, n=12 (Contrastive Quant)."""
    return _cifar_three_stage(12)


@BACKBONES.register()
def resnet110() -> nn.Module:
    """CIFAR ResNet-110, n=18 (Contrastive Quant)."""
    return _cifar_three_stage(18)


@BACKBONES.register()
def resnet152_cifar3() -> nn.Module:
    """CIFAR ResNet-152, n=25 (Contrastive Quant); `resnet152` is ImageNet's bottleneck network."""
    return _cifar_three_stage(25)


def _cifar_stem(name: str) -> nn.Module:
    """timm's ResNet with a 3x3 stride-1 stem and no max-pool (SSQL, SPEC A.1)."""
    net = timm.create_model(name, num_classes=0, zero_init_last=False)  # as in official SSQL
    net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    for level, stride in zip(net.feature_info, (1, 1, 2, 4, 8), strict=True):
        level["reduction"] = stride
    return net


@BACKBONES.register()
def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 32x32 images."""
    return _cifar_stem("resnet18")


@BACKBONES.register()
def resnet34_cifar() -> nn.Module:
    """ResNet-34 for 32x32 images."""
    return _cifar_stem("resnet34")


@BACKBONES.register()
def resnet50_cifar() -> nn.Module:
    """ResNet-50 for 32x32 images."""
    return _cifar_stem("resnet50")


@BACKBONES.register()
def mobilenetv2() -> nn.Module:
    """MobileNetV2 1.0 for ImageNet."""
    return timm.create_model("mobilenetv2_100", num_classes=0)


@BACKBONES.register()
def mobilenetv2_cifar() -> nn.Module:
    """MobileNetV2 for 32x32 images: stem and first down-sampling stage with stride 1."""
    net = mobilenetv2()
    for conv in (net.conv_stem, net.blocks[1][0].conv_dw):
        conv.stride = (1, 1)
    for level in net.feature_info:
        level["reduction"] //= 2 if level["module"] == "blocks.0" else 4
    return net


@BACKBONES.register()
def mobilenetv2_kuangliu() -> nn.Module:
    """MobileNetV2 for 32x32 images as in CoQuant: ReLU, and a 1x1 convolution in two shortcuts."""
    return KuangliuMobileNetV2()


@BACKBONES.register()
def reactnet18() -> nn.Module:
    """ReActNet-18 for ImageNet (Liu et al. 2020)."""
    return ReActNet()


@BACKBONES.register()
def reactnet18_cifar() -> nn.Module:
    """ReActNet-18 for 32x32 images: a 3x3 stride-1 stem without max-pool."""
    return ReActNet(small_images=True)


@BACKBONES.register()
def vit_small_moco_v3() -> nn.Module:
    """ViT-S with the 12 attention heads of MoCo v3 (Chen et al. 2021); timm's and DeiT's 6.

    Its position embedding for the class token is zero, as in theirs.
    """
    net = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12)
    with torch.no_grad():
        net.pos_embed[:, 0] = 0
    return net


def list_backbones() -> list[str]:
    """Return the registered names; every timm name works as well."""
    return sorted(name for name, _ in BACKBONES)


def create_backbone(architecture: str) -> nn.Module:
    """Build a network with random weights by its name here or in timm.

    The name is stored as the network's `.architecture`.

    Raises:
        ValueError: the name is unknown to both.
    """
    if architecture in BACKBONES:
        net = BACKBONES.get(architecture)()
    elif timm.is_model(architecture):
        net = timm.create_model(architecture, pretrained=False, num_classes=0)
    else:
        names = [*list_backbones(), *timm.list_models()]
        raise ValueError(
            f"there is no network {architecture!r}; nothing was built."
            f"{did_you_mean(architecture, names)} Own names: {', '.join(list_backbones())}; any name "
            "from timm.list_models() works as well."
        )
    net.architecture = architecture
    return net
