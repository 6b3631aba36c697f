"""Telling a network by its tensors, and not telling where they do not suffice."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from lowbit.backbones import (
    CheckpointError,
    create_backbone,
    list_backbones,
    load_backbone,
    save_backbone,
)
from lowbit.backbones.checkpoints.guess_network import candidates, guess, signature
from lowbit.backbones.checkpoints.load import examine
from lowbit.backbones.checkpoints.read_file import Contents


def empty(architecture, prefix="", **others):
    """A file with a network's tensors, which have no storage."""
    shapes = {prefix + k: s for k, s in signature(architecture).shapes.items()} | others
    tensors = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
    return Contents(Path("x.pth"), 0, "", {"": tensors}, {})


NETWORKS = sorted({*list_backbones(), *candidates({})})


def alike(architecture):
    """The networks whose tensors have the same names and shapes."""
    shapes = signature(architecture).shapes
    return {name for name in NETWORKS if signature(name).shapes == shapes}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_candidate_is_told_from_all_that_differ_and_ties_with_all_that_do_not(name):
    told = guess(empty(name).containers)
    assert set(told.complete) == alike(name)
    assert told.nearest in told.complete


def test_which_networks_are_alike():
    pairs = [{a, b} for a, b in combinations(NETWORKS, 2) if b in alike(a)]
    strides = {"mobilenetv2", "mobilenetv2_cifar"}
    heads = {"vit_small_moco_v3", "vit_small_patch16_224"}
    assert len(pairs) == 2 and strides in pairs and heads in pairs


@pytest.mark.parametrize("name", ["resnet8", "resnet38", "resnet50_cifar3"])
def test_a_cifar_resnet_of_any_depth_is_told(name):
    assert set(guess(empty(name).containers).complete) == {name}


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


SIX, TWELVE = "vit_small_patch16_224", "vit_small_moco_v3"  # attention heads


@pytest.mark.parametrize("prefix", ["", "backbone.", "teacher.backbone."])
def test_heads_that_nothing_tells_are_asked_for(prefix):
    with pytest.raises(CheckpointError, match=f"matches {TWELVE} and {SIX}, whose tensors are al"):
        examine(empty(SIX, prefix))


def test_moco_v3s_own_names_tell_its_heads():
    report, _ = examine(empty(TWELVE, "base_encoder."))
    assert report.architecture == TWELVE and report.guessed and not report.warnings
    assert create_backbone(TWELVE).blocks[0].attn.num_heads == 12


@pytest.mark.parametrize("name", ["mask_token", "decoder_embed.weight", "decoder_pos_embed"])
def test_names_of_masked_image_modelling_tell_that_it_is_not_moco_v3(name):
    report, _ = examine(empty(SIX, **{name: (1, 1, 512)}))
    assert report.architecture == SIX and "(inferred from tensor shapes)" in str(report)


@pytest.mark.parametrize(
    ("contents", "doubted"),
    [
        (empty(SIX), None),
        (empty(SIX, mask_token=(1, 1, 384)), TWELVE),
        (empty(SIX, "base_encoder."), SIX),
    ],
)
def test_a_name_is_obeyed_and_what_speaks_against_it_reported(contents, doubted):
    for name in (SIX, TWELVE, "deit_small_patch16_224"):
        report, _ = examine(contents, name)
        assert (report.architecture, report.share, report.complete) == (name, 1, True)
        assert f"{name} (as named)" in str(report)
        same = name if name == TWELVE else SIX
        assert [f"{name} was named and is used" in w for w in report.warnings] == (
            [True] if same == doubted else []
        )


def test_a_name_other_than_the_files_is_obeyed_where_the_tensors_are_alike(tmp_path):
    save_backbone(tmp_path / "x.pth", create_backbone("mobilenetv2_cifar"), {"method": "x"})
    net, report = load_backbone(tmp_path / "x.pth", "mobilenetv2")
    assert net.conv_stem.stride == (2, 2)
    assert "states that it holds a mobilenetv2_cifar; mobilenetv2 was named" in str(report)
    assert load_backbone(tmp_path / "x.pth")[0].conv_stem.stride == (1, 1)


def test_two_networks_in_one_file_are_named_with_their_places():
    both = {"student": empty("resnet20").containers[""], "net": empty("resnet32").containers[""]}
    with pytest.raises(CheckpointError, match=r"resnet20 \(at 'student'\) and resnet32 \(at 'net'"):
        examine(Contents(Path("x.pth"), 0, "", both, {}))
