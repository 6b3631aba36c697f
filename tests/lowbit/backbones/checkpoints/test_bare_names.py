"""Wrappers of training code are removed wherever they are, and nothing else is."""

import pytest
import torch

from lowbit.backbones import load_backbone
from lowbit.backbones.checkpoints.bare_names import bare_names
from lowbit.backbones.checkpoints.guess_network import signature

WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "module._orig_mod._fsdp_wrapped_module",
)
PLACES = {
    "in front": lambda k, w: f"{w}.{k}",
    "after a layout's prefix": lambda k, w: f"{w}.encoder_q.{w}.{k}",
    "a stage": lambda k, w: k.replace("layer1.", f"layer1.{w}."),
    "a block": lambda k, w: k.replace("layer2.0.", f"layer2.0.{w}."),
    "a layer": lambda k, w: k.replace("conv1.", f"conv1.{w}."),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("place", PLACES)
def test_wrappers_are_removed_wherever_they_are(place, wrapper):
    names = signature("resnet10_slim").shapes
    written = [PLACES[place](k, wrapper) for k in names]
    prefix = "encoder_q." if "layout" in place else ""
    assert list(bare_names(written).values()) == [prefix + k for k in names]


def test_only_whole_components_are_wrappers():
    names = ["my_module.weight", "modules.0.bias", "x_orig_mod.weight", "head.module"]
    assert list(bare_names(names).values()) == names


def test_names_that_would_become_equal_are_kept():
    names = ["conv.weight", "module.conv.weight", "module.fc.weight"]
    assert list(bare_names(names).values()) == ["conv.weight", "module.conv.weight", "fc.weight"]


def chunked(name, size):
    """DINOv2's BlockChunk: blocks before a chunk's first are identities, so the index runs on."""
    head, blocks, rest = name.partition("blocks.")
    return f"{head}blocks.{int(rest.split('.')[0]) // size}.{rest}" if blocks else name


@pytest.mark.parametrize("size", [1, 3, 12])
def test_chunks_of_blocks_are_removed(size):
    names = [f"teacher.backbone.{k}" for k in signature("vit_tiny_patch16_224").shapes]
    assert list(bare_names([chunked(k, size) for k in names]).values()) == names


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_stages_of_blocks_are_no_chunks(name):
    names = signature(name).shapes
    assert bare_names(names) == {k: k for k in names}


@pytest.mark.parametrize("kept", ["teacher", "student"])
def test_a_training_file_of_dinov2_gives_its_features(kept, vit_nano, images, tmp_path):
    state = vit_nano.state_dict()
    parts = {
        kept: state,
        "student": state if kept == "student" else {k: v + 1 for k, v in state.items()},
    }
    tensors = {
        f"{part}.backbone._fsdp_wrapped_module.{chunked(k, 1)}": v
        for part, tensors in parts.items()
        for k, v in tensors.items()
    }
    tensors |= {f"{kept}.dino_head.mlp.0.weight": torch.zeros(2, 2)}
    torch.save({"model": tensors, "iteration": 1}, tmp_path / "x.pth")
    net, report = load_backbone(tmp_path / "x.pth", "vit_nano")
    assert report.format == f"DINOv2, {kept}"
    with torch.no_grad():
        assert torch.equal(net.eval()(images), vit_nano(images))
