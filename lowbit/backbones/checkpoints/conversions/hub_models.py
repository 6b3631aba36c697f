"""State dicts of the transformers library, as models on the hub have them, in the names of timm's networks.

The library keeps queries, keys and values apart, which timm joins, and names by its own conventions. Its
files keep the names of release 4 (`encoder.layer.0.attention.output.dense`), while the networks of
release 5 have others in memory (`layers.0.attention.o_proj`), which `torch.save` would write: both are
read. A family is recognized by one of its names; its tensors are then renamed by the rules in order. Where the
result is what a model's official code stores (DINOv2 with registers, DINOv3), timm's own conversion does
the rest (`timm_conversion`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]

_PARTS = re.compile(r"(?P<layer>.+)\[(?P<part>[0-2])\]\.(?P<leaf>weight|bias)")

# Queries, keys and values are [0], [1] and [2] of what they are joined to.
_QKV: Rules = tuple(
    (rf"\.(?:attention\.attention|attention|self_attn)\.{name}(?:_proj)?\.", f".attn.qkv[{part}].")
    for part, names in enumerate(("query q", "key k", "value v"))
    for name in names.split()
)
_MODEL = (r"^(?!embeddings\.|encoder\.)\w+\.(?=embeddings\.|encoder\.|layers\.|layernorm\.)", "")
_EMBEDDINGS: Rules = (
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
)
_PROJECTION: Rules = ((r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),)
_SCALES: Rules = ((r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),)
_TOWER: Rules = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    *_QKV,
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_(weight|bias)$", r"attn_pool.in_proj.\1"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)


@dataclass(frozen=True)
class _Family:
    """Models of one class: a name that only they have, and what their names become."""

    name: str
    marker: re.Pattern[str]
    rules: Rules


_FAMILIES = (
    _Family(
        "DINOv2",
        re.compile(r"(?:\w+\.)?encoder\.layer\.0\.layer_scale1\.lambda1"),
        (
            _MODEL,
            *_EMBEDDINGS,
            (r"^encoder\.layer\.", "blocks."),
            *_QKV,
            *_PROJECTION,
            *_SCALES,
            (r"\.mlp\.weights_in\.", ".mlp.w12."),
            (r"\.mlp\.weights_out\.", ".mlp.w3."),
            (r"^layernorm\.", "norm."),
        ),
    ),
    _Family(
        "ViT or ViT-MAE",
        re.compile(r"(?:\w+\.)?(?:encoder\.layer|layers)\.0\.layernorm_before\.weight"),
        (
            _MODEL,
            *_EMBEDDINGS,
            (r"^(?:encoder\.layer|layers)\.", "blocks."),
            *_QKV,
            *_PROJECTION,
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"^layernorm\.", "norm."),
        ),
    ),
    _Family(
        "DINOv3 ViT",
        re.compile(r"(?:model\.)?layer\.0\.attention\.o_proj\.weight"),
        (
            *_EMBEDDINGS,
            (r"^register_tokens$", "storage_tokens"),
            (r"^(?:model\.)?layer\.", "blocks."),
            *_QKV,
            *_PROJECTION,
            *_SCALES,
            (r"\.mlp\.up_proj\.", ".mlp.fc1."),
            (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        ),
    ),
    _Family(
        "CLIP or SigLIP",
        re.compile(r"(?:vision_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight"),
        _TOWER,
    ),
    _Family(
        "ConvNeXt",
        re.compile(r"(?:\w+\.)?encoder\.stages\.0\.layers\.0\.dwconv\.weight"),
        (
            _MODEL,
            (r"^embeddings\.patch_embeddings\.", "stem.0."),
            (r"^embeddings\.layernorm\.", "stem.1."),
            (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
            (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
            (r"\.dwconv\.", ".conv_dw."),
            (r"^layernorm\.", "head.norm."),
            (r"\.layernorm\.", ".norm."),
            (r"\.pwconv([12])\.", r".mlp.fc\1."),
            (r"\.grn\.", ".mlp.grn."),
            (r"\.layer_scale_parameter$", ".gamma"),
        ),
    ),
)


def from_hub(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """Return the family of a state dict of the transformers library and its tensors by timm's names.

    None where it is no model of a known family. Tensors that no rule names keep their names.

    Example:
        >>> names = ("query", "key", "value")
        >>> parts = {f"encoder.layer.0.attention.attention.{n}.weight": torch.ones(2, 2) for n in names}
        >>> scale = {"encoder.layer.0.layer_scale1.lambda1": torch.ones(2)}
        >>> family, tensors = from_hub(parts | scale)
        >>> family, tensors["blocks.0.attn.qkv.weight"].shape
        ('DINOv2', torch.Size([6, 2]))
    """
    family = next((f for f in _FAMILIES if any(map(f.marker.fullmatch, tensors))), None)
    if family is None:
        return None
    named = {_renamed(name, family.rules): tensor for name, tensor in tensors.items()}
    return family.name, _parted(_joined(named))


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values; a bias that one of them lacks is zero."""
    joined: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        if found := _PARTS.fullmatch(name):
            place = f"{found['layer']}.{found['leaf']}"
            parts.setdefault(place, {})[int(found["part"])] = tensor
        else:
            joined[name] = tensor
    for place, known in parts.items():
        like = next(iter(known.values()))
        if place.endswith(".bias") or len(known) == 3:
            joined[place] = torch.cat([known.get(i, torch.zeros_like(like)) for i in range(3)])
    return joined


def _parted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Part the projections of SigLIP's pooling, where timm keeps queries apart."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("attn_pool.in_proj."):
            leaf, width = name.rpartition(".")[2], len(tensor) // 3
            found |= {f"attn_pool.q.{leaf}": tensor[:width], f"attn_pool.kv.{leaf}": tensor[width:]}
        else:
            found[name] = tensor
    return found
