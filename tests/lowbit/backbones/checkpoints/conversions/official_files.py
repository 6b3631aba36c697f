"""Files as models' official codes and the transformers library write them, from timm's networks.

Tensors have the real names and shapes; each holds one number of its own everywhere, so that it takes no
memory and is known again.
"""

import re
from pathlib import Path

import torch

from lowbit.backbones.checkpoints.bare_names import bare_names
from lowbit.backbones.checkpoints.guess_network import signature
from lowbit.backbones.checkpoints.read_file import Contents


def state(architecture):
    """Return a network's state dict, tensor number i full of i + 1."""
    shapes = signature(architecture).shapes
    return {k: torch.tensor(float(i + 1)).expand(s) for i, (k, s) in enumerate(shapes.items())}


def contents(file):
    """Return what reading a file with these contents gives.

    No file is written: one whose tensors take no memory is refused for what it would unpack to.
    """
    parts = {name: part for name, part in file.items() if isinstance(part, dict) and part} or {
        "": file
    }
    bare = {path: bare_names(tensors) for path, tensors in parts.items()}
    containers = {
        path: {bare[path][name]: tensor for name, tensor in tensors.items()}
        for path, tensors in parts.items()
    }
    return Contents(Path("x.pth"), 0, "0" * 64, containers, {})


def full(number, *shape):
    return torch.tensor(float(number)).expand(shape)


def renamed(tensors, *rules):
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def split_qkv(tensors, layer, names, leaves=("weight", "bias")):
    """Replace attn.qkv by its three parts, each under one of `names`."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*)\battn\.qkv\.(\w+)", name)
        if match and match[2] in leaves:
            for part, own in zip(tensor.chunk(3), names, strict=True):
                found[f"{match[1]}{layer}.{own}.{match[2]}"] = part
        else:
            found[name] = tensor
    return found


def dinov2(s):
    return {**s, "mask_token": full(0, 1, 384)}


def dinov2_registers(s):
    """The class token's position is apart, and registers have another name."""
    s = dict(s)
    tokens, positions = s.pop("cls_token"), s.pop("pos_embed")
    first = full(0.25, 1, 1, 384)
    return {
        "cls_token": tokens - first,
        "pos_embed": torch.cat([first, positions], 1),
        "register_tokens": s.pop("reg_token"),
        "mask_token": full(0, 1, 384),
        **s,
    }


def dinov2_training(s):
    """Teacher and student of FSDP, blocks in chunks of six."""
    chunked = {
        re.sub(r"blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 6}.{m[1]}.", k): v
        for k, v in dinov2(s).items()
    }
    student = {k: v + 1000 for k, v in chunked.items()}
    return {
        "model": {
            **prefixed(student, "student.backbone._fsdp_wrapped_module."),
            **prefixed(chunked, "teacher.backbone._fsdp_wrapped_module."),
            "teacher.dino_head.mlp.0.weight": full(0, 8, 384),
        },
        "iteration": 7,
    }


def dinov3(s):
    """Keys have a bias that a mask keeps at zero; positions are rotary, with a buffer."""
    found = renamed(s, (r"gamma_([12])$", r"ls\1.gamma"), (r"^reg_token$", "storage_tokens"))
    for name in [n for n in found if n.endswith("q_bias")]:
        layer = name.removesuffix("q_bias")
        q, v = found.pop(name), found.pop(f"{layer}v_bias")
        found[f"{layer}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
        found[f"{layer}qkv.bias_mask"] = torch.ones(3 * len(q))
    return {**found, "mask_token": full(0, 1, 384), "rope_embed.periods": full(1, 16)}


def mae(s):
    return {
        "model": {
            **s,
            "mask_token": full(0, 1, 1, 512),
            "decoder_pos_embed": full(0, 1, 197, 512),
            "decoder_embed.weight": full(0, 512, 192),
            "decoder_blocks.0.attn.qkv.weight": full(0, 1536, 512),
        },
        "optimizer": {},
    }


def beit(s):
    index = {f"blocks.{n}.attn.relative_position_index": full(0, 197, 197) for n in range(12)}
    return {"model": {**s, **index, "head.weight": full(0, 1000, 768)}}


def eva02(s):
    found = renamed(
        s,
        (r"\.mlp\.fc1_g\.", ".mlp.w1."),
        (r"\.mlp\.fc1_x\.", ".mlp.w2."),
        (r"\.mlp\.fc2\.", ".mlp.w3."),
        (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
        (r"\.attn\.norm\.", ".attn.inner_attn_ln."),
    )
    rotary = {f"blocks.{n}.attn.rope.freqs_cos": full(0, 256, 64) for n in range(12)}
    return {"model": {**found, **rotary, "rope.freqs_sin": full(0, 256, 64)}}


_CONVNEXT = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc([12])\.", r".pwconv\1."),
    (r"^head\.norm\.", "norm."),
)


def convnext(s):
    return {"model": {**renamed(s, *_CONVNEXT), "head.weight": full(0, 1000, 768)}}


def convnextv2(s):
    found = renamed(
        s, *_CONVNEXT, (r"mlp\.grn\.weight", "grn.gamma"), (r"mlp\.grn\.bias", "grn.beta")
    )
    return {"model": linear(found)}


def linear(tensors):
    """Return the tensors of linear layers, which some of timm's networks have as 1x1 convolutions."""
    return {
        k: v[None, None, None]
        if ".grn." in k
        else v.flatten(1)
        if re.search(r"pwconv.\.weight", k)
        else v
        for k, v in tensors.items()
    }


def clip(s):
    """OpenAI's names, which OpenCLIP keeps, with the text tower beside the image tower."""
    found = renamed(
        s,
        (r"^cls_token$", "class_embedding"),
        (r"^pos_embed$", "positional_embedding"),
        (r"^patch_embed\.proj\.", "conv1."),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    )
    found["class_embedding"] = found["class_embedding"][0, 0]
    found["positional_embedding"] = found["positional_embedding"][0]
    return {
        **prefixed(found, "visual."),
        "visual.proj": full(0, 768, 512),
        "positional_embedding": full(0, 77, 512),
        "text_projection": full(0, 512, 512),
        "token_embedding.weight": full(0, 49408, 512),
        "transformer.resblocks.0.ln_1.weight": full(0, 512),
        "logit_scale": full(0),
    }


def siglip(s):
    return {
        **prefixed(s, "visual.trunk."),
        "text.positional_embedding": full(0, 64, 768),
        "text.transformer.resblocks.0.ln_1.weight": full(0, 768),
        "logit_bias": full(0),
    }


_HUB_VIT = (
    (r"^(cls_token|mask_token)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
)
_ATTENTION = ("attention.attention", ("query", "key", "value"))


def hub_dinov2(s):
    return renamed(
        split_qkv({**s, "mask_token": full(0, 1, 384)}, *_ATTENTION),
        *_HUB_VIT,
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
    )


def hub_dinov2_registers(s):
    found = dinov2_registers(s)
    found["embeddings.register_tokens"] = found.pop("register_tokens")
    return prefixed(hub_dinov2(found), "dinov2_with_registers.")


def hub_mae(s):
    found = renamed(
        split_qkv(s, *_ATTENTION),
        *_HUB_VIT,
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )
    decoder = "decoder.decoder_layers.0.attention.attention.query.weight"
    return {**prefixed(found, "vit."), decoder: full(0, 512, 512)}


def hub_vit_in_memory(s):
    """What `torch.save` writes of a network of transformers 5."""
    return renamed(
        split_qkv(s, "attention", ("q_proj", "k_proj", "v_proj")),
        *_HUB_VIT[:-1],
        (r"^blocks\.", "layers."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
    )


def hub_dinov3(s):
    found = dinov3(s)
    for name in [n for n in found if n.endswith(("bias_mask", "periods"))]:
        del found[name]
    found = split_qkv(found, "attention", ("q_proj", "k_proj", "v_proj"))
    found = {n: t for n, t in found.items() if not n.endswith("k_proj.bias")}
    return renamed(
        found,
        (r"^(cls_token|mask_token)$", r"embeddings.\1"),
        (r"^storage_tokens$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
        (r"^blocks\.", "layer."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
        (r"\.mlp\.fc1\.", ".mlp.up_proj."),
        (r"\.mlp\.fc2\.", ".mlp.down_proj."),
    )


def _hub_tower(s):
    found = renamed(
        split_qkv(s, "self_attn", ("q_proj", "k_proj", "v_proj")),
        (r"^cls_token$", "embeddings.class_embedding"),
        (r"^pos_embed$", "embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
        (r"^norm_pre\.", "pre_layrnorm."),
        (r"^norm\.", "post_layernorm."),
        (r"^blocks\.", "encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
    )
    position = "embeddings.position_embedding.weight"
    return {**found, position: found[position][0]}


def hub_clip(s):
    found = _hub_tower(s)
    found["embeddings.class_embedding"] = found["embeddings.class_embedding"][0, 0]
    return {
        **prefixed(found, "vision_model."),
        "vision_model.embeddings.position_ids": full(0, 1, 50),
        "text_model.encoder.layers.0.self_attn.q_proj.weight": full(0, 512, 512),
        "visual_projection.weight": full(0, 512, 768),
    }


def hub_siglip(s):
    found = _hub_tower(s)
    for leaf in ("weight", "bias"):
        parts = [found.pop(f"attn_pool.{name}.{leaf}") for name in ("q", "kv")]
        found[f"head.attention.in_proj_{leaf}"] = torch.cat(parts)
    found = renamed(
        found,
        (r"^attn_pool\.latent$", "head.probe"),
        (r"^attn_pool\.proj\.", "head.attention.out_proj."),
        (r"^attn_pool\.norm\.", "head.layernorm."),
        (r"^attn_pool\.mlp\.", "head.mlp."),
    )
    return prefixed(found, "vision_model.")


def hub_convnext(s):
    found = renamed(
        s,
        (r"^stem\.0\.", "embeddings.patch_embeddings."),
        (r"^stem\.1\.", "embeddings.layernorm."),
        (r"^head\.norm\.", "layernorm."),
        (r"^stages\.(\d)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
        (r"^stages\.(\d)\.blocks\.", r"encoder.stages.\1.layers."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.norm\.", ".layernorm."),
        (r"\.mlp\.fc([12])\.", r".pwconv\1."),
        (r"\.mlp\.grn\.", ".grn."),
        (r"\.gamma$", ".layer_scale_parameter"),
    )
    return linear(found)


FILES = {  # the network, and how its file is written
    "DINOv2": ("vit_small_patch14_dinov2", dinov2),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", dinov2_registers),
    "DINOv2, training": ("vit_small_patch14_dinov2", dinov2_training),
    "DINOv3": ("vit_small_patch16_dinov3_qkvb", dinov3),
    "MAE": ("vit_tiny_patch16_224", mae),
    "BEiT": ("beit_base_patch16_224", beit),
    "EVA-02": ("eva02_tiny_patch14_224", eva02),
    "ConvNeXt": ("convnext_tiny", convnext),
    "ConvNeXt V2": ("convnextv2_atto", convnextv2),
    "CLIP": ("vit_base_patch32_clip_224", clip),
    "SigLIP": ("vit_base_patch16_siglip_224", siglip),
    "DINOv2 of transformers": ("vit_small_patch14_dinov2", hub_dinov2),
    "DINOv2 with registers of transformers": (
        "vit_small_patch14_reg4_dinov2",
        hub_dinov2_registers,
    ),
    "DINOv3 of transformers": ("vit_small_patch16_dinov3_qkvb", hub_dinov3),
    "MAE of transformers": ("vit_tiny_patch16_224", hub_mae),
    "ViT of transformers in memory": ("vit_tiny_patch16_224", hub_vit_in_memory),
    "CLIP of transformers": ("vit_base_patch32_clip_224", hub_clip),
    "SigLIP of transformers": ("vit_base_patch16_siglip_224", hub_siglip),
    "ConvNeXt V2 of transformers": ("convnextv2_atto", hub_convnext),
    "ConvNeXt of transformers": (
        "convnext_tiny",
        lambda s: prefixed(hub_convnext(s), "convnext."),
    ),
}
