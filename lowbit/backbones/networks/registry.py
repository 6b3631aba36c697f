"""Registry of backbones, which map images to pooled features and have no classifier."""

import re

import timm
import torch
from fvcore.common.registry import Registry
from torch import nn

from lowbit.backbones.networks.mobilenetv2_kuangliu import KuangliuMobileNetV2
from lowbit.backbones.networks.reactnet import ReActNet
from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief

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


@BACKBONES.register()
def resnet6_slim() -> nn.Module:
    """Two stages of one block, widths 16-32, strides 2-4: five 3x3 convolutions for 16-pixel images."""
    return SmallResNet((1, 1), (16, 32), stem_stride=2, shortcut="conv")


# Of the CIFAR ResNets, which exist at any depth of 6n + 2: He et al. (2016), Contrastive Quant.
_PUBLISHED_DEPTHS = (20, 32, 44, 56, 74, 110, 152)
_IMAGENET_DEPTHS = (26, 50, 152, 200)  # resnet26, ... are timm's networks for ImageNet
DEEPEST_CIFAR_BLOCKS = 200  # resnet1202, the deepest that was published
_CIFAR_RESNET = re.compile(r"resnet(?P<depth>\d{1,9})(?P<rest>_cifar\d*)?")


def cifar_resnet(blocks: int) -> str:
    """Return the name of the CIFAR ResNet of three stages of n = `blocks` blocks, 6n + 2 layers.

    Example:
        >>> cifar_resnet(3), cifar_resnet(8)  # resnet50 is ImageNet's
        ('resnet20', 'resnet50_cifar3')
    """
    depth = 6 * blocks + 2
    return f"resnet{depth}_cifar3" if depth in _IMAGENET_DEPTHS else f"resnet{depth}"


def _cifar_blocks(architecture: str) -> int | None:
    """Return the blocks in each stage of a CIFAR ResNet, None for any other name."""
    found = _CIFAR_RESNET.fullmatch(architecture)
    blocks = (int(found["depth"]) - 2) // 6 if found else 0
    named = 0 < blocks <= DEEPEST_CIFAR_BLOCKS and architecture == cifar_resnet(blocks)
    return blocks if named else None


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


@BACKBONES.register()
def vit_small_dinov2() -> nn.Module:
    """ViT-S/14 of DINOv2 (Oquab et al. 2023) for images of any multiple of 14 pixels; timm's takes only 518.

    The position embedding is resampled to the image, which changes nothing at 518 pixels.
    """
    return timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)


def list_backbones() -> list[str]:
    """Return the suite's own names; every timm name and every depth of CIFAR ResNet works as well."""
    three_stages = (cifar_resnet((depth - 2) // 6) for depth in _PUBLISHED_DEPTHS)
    return sorted([*three_stages, *(name for name, _ in BACKBONES)])


def create_backbone(architecture: str) -> nn.Module:
    """Build a network with random weights by its name here or in timm.

    CIFAR ResNets (He et al. 2016) of 6n + 2 layers are `resnet20`, `resnet32`, ... `resnet1202`;
    where ImageNet's has the name, `resnet26_cifar3`, `resnet50_cifar3`, `resnet152_cifar3`,
    `resnet200_cifar3`. The name is stored as the network's `.architecture`.

    Raises:
        ValueError: the name is unknown to both.
    """
    if architecture in BACKBONES:
        net = BACKBONES.get(architecture)()
    elif (blocks := _cifar_blocks(architecture)) is not None:
        net = SmallResNet((blocks,) * 3, (16, 32, 64), stem_stride=1, shortcut="pad")
    elif timm.is_model(architecture):
        net = timm.create_model(architecture, pretrained=False, num_classes=0)
    else:
        names = [*list_backbones(), *timm.list_models()]
        raise ValueError(
            f"there is no network {brief(architecture)}; nothing was built."
            f"{_depths(architecture) or did_you_mean(architecture, names)} Own names: "
            f"{', '.join(list_backbones())}; any name from timm.list_models() works as well."
        )
    net.architecture = architecture
    return net


def _depths(architecture: str) -> str:
    """Return which CIFAR ResNets are nearest to a depth that does not exist."""
    found = _CIFAR_RESNET.fullmatch(architecture)
    if not found:
        return ""
    blocks, rest = divmod(int(found["depth"]) - 2, 6)
    near = {min(max(1, n), DEEPEST_CIFAR_BLOCKS) for n in (blocks, blocks + bool(rest))}
    names = " and ".join(f"{cifar_resnet(n)} (n={n})" for n in sorted(near))
    return (
        " CIFAR ResNets of three stages have 6n + 2 layers (resnet20, resnet32, resnet44, ...); "
        f"nearest: {names}."
    )
