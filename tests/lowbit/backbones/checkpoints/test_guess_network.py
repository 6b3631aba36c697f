"""Telling a network by its tensors, and not telling where they do not suffice."""

import pytest
import torch

from lowbit.backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints.guess_network import candidates, guess, signature
from lowbit.backbones.checkpoints.load import examine
from lowbit.backbones.checkpoints.read_file import read


def empty(architecture):
    """A network's tensors without storage."""
    return {
        "": {k: torch.empty(s, device="meta") for k, s in signature(architecture).shapes.items()}
    }


ALIKE = {frozenset({"mobilenetv2", "mobilenetv2_cifar"})}  # which differ in strides alone
SMALL = ("vit_small_moco_v3", "vit_small_patch16_224", "vit_small_patch8_224")


@pytest.mark.parametrize("name", [n for n in candidates() if n not in SMALL])
def test_every_candidate_is_told_from_the_others(name):
    told = guess(empty(name))
    assert set(told.complete) == {name} or frozenset(told.complete) in ALIKE
    assert told.nearest in told.complete


def test_networks_that_differ_in_strides_alone_must_be_named(tmp_path):
    torch.save(create_backbone("mobilenetv2").state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="matches mobilenetv2 and mobilenetv2_cifar"):
        load_backbone(tmp_path / "x.pth")


def test_an_unknown_network_is_answered_with_the_nearest(tmp_path):
    state = create_backbone("resnet10_slim").state_dict()
    del state["conv1.weight"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="The nearest is resnet10_slim: 71 of 72 tensors"):
        load_backbone(tmp_path / "x.pth")


def test_names_of_no_network(tmp_path):
    torch.save({"one.two": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"No known network has such names: one\.two"):
        load_backbone(tmp_path / "x.pth")


def test_a_small_transformer_is_told_by_its_positions(tmp_path):
    """MoCo v3's has 12 attention heads, all others 6; the shapes are alike, the features are not."""
    net = create_backbone("vit_small_moco_v3")
    assert net.blocks[0].attn.num_heads == 12
    state = {f"module.base_encoder.{k}": v for k, v in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth")
    assert report.architecture == "vit_small_moco_v3" and loaded.blocks[0].attn.num_heads == 12
    with pytest.raises(CheckpointError, match="not a ViT-S of 6 attention heads"):
        load_backbone(tmp_path / "x.pth", "vit_small_patch16_224")

    torch.nn.init.ones_(net.pos_embed)
    torch.save(
        {"teacher": {f"backbone.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "y"
    )
    contents = read(tmp_path / "y")
    assert examine(contents)[0].architecture == "vit_small_patch16_224"
    assert examine(contents, "deit_small_patch16_224")[0].share == 1
    with pytest.raises(CheckpointError, match="not a ViT-S of 12 attention heads"):
        load_backbone(tmp_path / "y", "vit_small_moco_v3")

    # our own files state their network, wherever training took the positions
    save_backbone(tmp_path / "z.safetensors", net, {"method": "MoCo v3", "data": "x"})
    assert load_backbone(tmp_path / "z.safetensors")[1].architecture == "vit_small_moco_v3"
