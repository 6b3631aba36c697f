"""Networks that a file without a stated architecture may hold, by the shape of their first convolution.

DINOv2 and v3, MAE, BEiT, EVA-02, ConvNeXt (v1, v2), and the image towers of CLIP and SigLIP. BEiT v2 is not
listed: its network is BEiT's. CLIP's exist with two activations, which no tensor shows. Our ViT-S of DINOv2
is timm's, for images of other sizes too.
"""

from collections.abc import Mapping
from typing import Any


def _vit(width: int, patch: int) -> tuple[int, ...]:
    return width, 3, patch, patch


def _clip(size: str, patch: int, pixels: int = 224) -> tuple[str, ...]:
    return tuple(
        f"vit_{size}_patch{patch}_clip{activation}_{pixels}" for activation in ("", "_quickgelu")
    )


_NETWORKS: dict[tuple[int, ...], tuple[str, ...]] = {
    _vit(192, 14): ("eva02_tiny_patch14_224", "eva02_tiny_patch14_336"),
    _vit(384, 14): (
        "vit_small_dinov2",
        "vit_small_patch14_reg4_dinov2",
        "eva02_small_patch14_224",
        "eva02_small_patch14_336",
    ),
    _vit(768, 14): (
        "vit_base_patch14_dinov2",
        "vit_base_patch14_reg4_dinov2",
        "eva02_base_patch14_224",
        "eva02_base_patch14_448",
    ),
    _vit(1024, 14): (
        "vit_large_patch14_dinov2",
        "vit_large_patch14_reg4_dinov2",
        "eva02_large_patch14_224",
        "eva02_large_patch14_448",
        *_clip("large", 14),
    ),
    _vit(1280, 14): ("vit_huge_patch14_224", *_clip("huge", 14)),
    _vit(1536, 14): ("vit_giant_patch14_dinov2", "vit_giant_patch14_reg4_dinov2"),
    _vit(192, 16): ("vit_tiny_patch16_224",),
    _vit(384, 8): ("vit_small_patch8_224",),
    _vit(384, 16): (
        "vit_small_patch16_dinov3",
        "vit_small_patch16_dinov3_qkvb",
        "vit_small_patch16_224",
    ),
    _vit(768, 16): (
        "vit_base_patch16_dinov3",
        "vit_base_patch16_dinov3_qkvb",
        "beit_base_patch16_224",
        "vit_base_patch16_siglip_224",
        *_clip("base", 16),
        "vit_base_patch16_224",
    ),
    _vit(1024, 16): (
        "vit_large_patch16_224",
        "vit_large_patch16_dinov3",
        "vit_large_patch16_dinov3_qkvb",
        "beit_large_patch16_224",
    ),
    _vit(768, 32): _clip("base", 32),
    _vit(40, 4): ("convnextv2_atto",),
    _vit(48, 4): ("convnextv2_femto",),
    _vit(64, 4): ("convnextv2_pico",),
    _vit(80, 4): ("convnextv2_nano",),
    _vit(96, 4): ("convnext_tiny", "convnext_small", "convnextv2_tiny"),
    _vit(128, 4): ("convnext_base", "convnextv2_base"),
    _vit(192, 4): ("convnext_large", "convnextv2_large"),
}


def of_today(containers: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the networks that begin with a convolution of a shape which some tensor of a file has."""
    shapes = {tuple(t.shape) for tensors in containers.values() for t in tensors.values()}
    return tuple(name for first, names in _NETWORKS.items() if first in shapes for name in names)
