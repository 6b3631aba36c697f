"""Today's checkpoints, as their authors and the hub store them, give the networks that they came from."""

import pytest
import torch

from lowbit.backbones import CheckpointError, create_backbone, load_backbone
from lowbit.backbones.checkpoints.load import loadable
from tests.lowbit.backbones.checkpoints.conversions.official_files import (
    FILES,
    contents,
    full,
    state,
)


def file_of(name, change=lambda tensors: tensors):
    """Return a network and a file of it, changed."""
    architecture, write = FILES[name]
    return architecture, contents(change(write(state(architecture))))


@pytest.mark.parametrize("name", FILES)
def test_every_tensor_is_found_with_its_values(name):
    architecture, file = file_of(name)
    report, found = loadable(file, architecture)
    assert report.complete and report.share == 1
    for key, expected in state(architecture).items():
        assert found[key].shape == expected.shape, key
        lowest, highest = found[key].aminmax()
        assert (lowest, highest) == (expected.flatten()[0],) * 2, key


@pytest.mark.parametrize("name", FILES)
def test_the_network_is_told_from_the_file(name):
    architecture, file = file_of(name)
    if name.startswith("CLIP"):  # its activation is in no tensor
        with pytest.raises(CheckpointError, match=r"clip_224 and vit_base_patch32_clip_quickgelu"):
            loadable(file)
        return
    report, _ = loadable(file)
    ours = {"vit_small_patch14_dinov2": "vit_small_dinov2"}.get(architecture, architecture)
    assert report.architecture == ours and report.guessed


def test_queries_keys_and_values_come_in_timms_order():
    architecture, write = FILES["DINOv2 of transformers"]
    tensors = write(state(architecture))
    for number, name in enumerate(("query", "key", "value")):
        layer = f"encoder.layer.3.attention.attention.{name}"
        tensors[f"{layer}.weight"] = full(number + 7, 384, 384)
        tensors[f"{layer}.bias"] = full(number + 17, 384)
    _, found = loadable(contents(tensors), architecture)
    weight, bias = (found[f"blocks.3.attn.qkv.{leaf}"] for leaf in ("weight", "bias"))
    assert weight[:, 0].view(3, 384)[:, 0].tolist() == [7, 8, 9]
    assert bias.view(3, 384)[:, 5].tolist() == [17, 18, 19]


def test_a_whole_file_is_loaded_into_a_network(tmp_path):
    torch.manual_seed(0)
    source = create_backbone("convnextv2_atto").eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for write in ("ConvNeXt V2", "ConvNeXt V2 of transformers"):
        torch.save(FILES[write][1](source.state_dict()), tmp_path / "x.pth")
        loaded, report = load_backbone(tmp_path / "x.pth")
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(loaded.eval()(images), source(images))
        assert report.architecture == "convnextv2_atto"


@pytest.mark.parametrize("name", ["DINOv2", "DINOv2 with registers", "DINOv2 of transformers"])
def test_positions_of_another_image_size_are_refused_not_resized(name):
    """timm's conversion would interpolate them: another network than the file's, without a word."""

    def smaller(tensors):
        key = next(k for k in tensors if k.endswith(("pos_embed", "position_embeddings")))
        return {**tensors, key: full(3, 1, 257, 384)}

    architecture, file = file_of(name, smaller)
    with pytest.raises(
        CheckpointError, match=r"pos_embed.*nothing was loaded|nothing was loaded.*pos_embed"
    ):
        loadable(file, architecture)


@pytest.mark.parametrize(
    ("name", "lost", "missing"),
    [
        ("DINOv3", "blocks.5.attn.proj.weight", "blocks.5.attn.proj.weight"),
        ("MAE of transformers", "vit.encoder.layer.2.attention.attention.key.weight", "blocks.2.attn.qkv.weight"),
        ("ConvNeXt V2", "downsample_layers.2.1.weight", "stages.2.downsample.1.weight"),
        ("CLIP", "visual.ln_post.bias", "norm.bias"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_a_tensor_is_refused_by_our_name(name, lost, missing):
    def without(tensors):
        tensors = tensors.get("model", tensors)
        del tensors[lost]
        return tensors

    architecture, file = file_of(name, without)
    with pytest.raises(CheckpointError) as refusal:
        loadable(file, architecture)
    assert f"not in the file: {missing}" in str(refusal.value)


def test_more_blocks_than_the_network_has_are_refused():
    def deeper(tensors):
        return tensors | {k.replace(".11.", ".12."): v for k, v in tensors.items() if ".11." in k}

    architecture, file = file_of("DINOv2 of transformers", deeper)
    with pytest.raises(CheckpointError, match=r"in the file but not in the network: blocks\.12\."):
        loadable(file, architecture)


@pytest.mark.parametrize("name", ["DINOv3", "DINOv3 of transformers"])
def test_biases_that_a_network_lacks_are_not_dropped_unless_they_are_zero(name):
    _, write = FILES[name]
    tensors = write(state("vit_small_patch16_dinov3_qkvb"))
    with pytest.raises(CheckpointError, match=r"in the file but not in the network: .*qkv\.bias"):
        loadable(contents(tensors), "vit_small_patch16_dinov3")
    zero = {k: 0 * v if k.endswith(("qkv.bias", "_proj.bias")) else v for k, v in tensors.items()}
    report, _ = loadable(contents(zero), "vit_small_patch16_dinov3")
    assert report.complete


def test_registers_are_not_ignored():
    _, file = file_of("DINOv2 with registers")
    with pytest.raises(CheckpointError, match=r"not in the network: register_tokens"):
        loadable(file, "vit_small_patch14_dinov2")


def test_a_classifier_beside_the_last_norm_is_left_out():
    """timm's ConvNeXt has both in one module."""
    tensors = {**state("convnextv2_atto"), "head.fc.weight": full(1, 1000, 320)}
    assert loadable(contents(tensors))[0].architecture == "convnextv2_atto"
