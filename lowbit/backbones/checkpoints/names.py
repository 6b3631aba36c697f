"""Other projects' tensor names for networks that use timm's names here.

A naming is a table of modules or an ordered list of (pattern, replacement) that turns our
name into theirs. Loading and writing both use it in this direction.
"""

import functools
import re

_RESNET_STAGES = {f"layer{n}": f"res{n + 1}" for n in (1, 2, 3, 4)}

Rules = tuple[tuple[str, str], ...]


def _stages(names: dict[str, str]) -> Rules:
    return tuple((rf"^{ours}\.", f"{theirs}.") for ours, theirs in names.items())


def _mobilenetv2(stem: str, head: str, block: str, layer: str, last: str) -> dict[str, str]:
    """Return the modules of MobileNetV2 by our names.

    Args:
        stem: their names of the first convolution and norm, separated by a space.
        head: likewise for the last ones.
        block: format of a block's name: {n} counts all of them from 1, {s} stages from 1, {b} the
            blocks of a stage from 0.
        layer: names inside a block; {i} counts its convolutions from 0.
        last: names of its last convolution and norm; {j} is i + 1.
    """
    modules = dict(
        zip(("conv_stem", "bn1", "conv_head", "bn2"), f"{stem} {head}".split(), strict=True)
    )
    blocks = [(s, b) for s, depth in enumerate((1, 2, 3, 4, 3, 3, 1)) for b in range(depth)]
    for n, (s, b) in enumerate(blocks, start=1):
        parts = ("conv_dw", "conv_pw") if s == 0 else ("conv_pw", "conv_dw", "conv_pwl")
        for i, part in enumerate(parts):
            names = (last if part == parts[-1] else layer).format(i=i, j=i + 1).split()
            for ours, theirs in zip((part, f"bn{i + 1}"), names, strict=True):
                place = block.format(n=n, s=s + 1, b=b)
                modules[f"blocks.{s}.{b}.{ours}"] = f"{place}.{theirs}"
    return modules


MODULES: dict[str, dict[str, str]] = {
    "torchvision_mobilenetv2": _mobilenetv2(
        "features.0.0 features.0.1",
        "features.18.0 features.18.1",
        "features.{n}.conv",
        "{i}.0 {i}.1",
        "{i} {j}",
    ),
    "mmpretrain_mobilenetv2": _mobilenetv2(
        "conv1.conv conv1.bn",
        "conv2.conv conv2.bn",
        "layer{s}.{b}.conv",
        "{i}.conv {i}.bn",
        "{i}.conv {i}.bn",
    ),
}

PATTERNS: dict[str, Rules] = {
    # timm's own, which are torchvision's, MoCo's, ... for a ResNet
    "timm": (),
    # nn.Sequential(*list(torchvision_resnet.children())[:-1])
    "sequential": _stages(
        {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    ),
    # lightly's own ResNet, which has neither ReLU nor max-pooling modules, in an nn.Sequential
    "lightly_resnet": (
        *_stages(
            {"conv1": "0", "bn1": "1", "layer1": "2", "layer2": "3", "layer3": "4", "layer4": "5"}
        ),
        (r"\.downsample\.", ".shortcut."),
    ),
    # CIFAR ResNets after kuangliu/pytorch-cifar
    "shortcut": ((r"\.downsample\.", ".shortcut."),),
    "detectron2": (
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
        (r"\bbn(\d)\.", r"conv\1.norm."),
        (r"^conv1\.", "stem.conv1."),
        *_stages(_RESNET_STAGES),
    ),
    # SSQL's quantized layers keep their norm inside
    "norm_inside": (
        (r"\.downsample\.0\.", ".downsample."),
        (r"\.downsample\.1\.", ".downsample.bn_function."),
        (r"\bbn(\d)\.", r"conv\1.bn_function."),
    ),
    "torchvision_vit": (
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^norm\.", "encoder.ln."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    ),
    "mmpretrain_vit": (
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^norm\.", "ln1."),
        (r"^blocks\.", "layers."),
        (r"\.norm([12])\.", r".ln\1."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    ),
}


@functools.cache
def rename(naming: str, name: str) -> str:
    """Return the other project's name of our tensor `name`.

    Example:
        >>> rename("detectron2", "layer1.0.bn2.weight")
        'res2.0.conv2.norm.weight'
    """
    if naming in MODULES:
        module, _, leaf = name.rpartition(".")
        return f"{MODULES[naming].get(module, module)}.{leaf}"
    for pattern, replacement in PATTERNS[naming]:
        name = re.sub(pattern, replacement, name)
    return name
