"""Files of this suite show every flipped bit; other formats without checksums are warned of."""

import json
import pickle
import random

import pytest
import safetensors.torch
import torch

from lowbit.backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints.read_file import read

META = {"method": "SimSiam", "data": "digits", "lr": 0.1, "nested": {"2": [1, None]}, "ü": "ü"}
UNVERIFIED = "has no checksums"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_flipped_bit_is_refused_or_without_effect(slim, tmp_path, suffix):
    path, rng = tmp_path / f"x.{suffix}", random.Random(0)
    save_backbone(path, slim, META)
    good, expected = path.read_bytes(), read(path)
    assert expected.verified
    refused = 0
    for _ in range(150):
        content = bytearray(good)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            found = read(path)
        except CheckpointError:
            refused += 1
            continue
        if not found.meta:  # its key was hit: a file of another project
            assert any(UNVERIFIED in w for w in load_backbone(path)[1].warnings)
        else:
            assert found.meta == expected.meta
        assert found.containers["model"].keys() == expected.containers["model"].keys()
        for name, tensor in expected.containers["model"].items():
            assert torch.equal(found.containers["model"][name], tensor)
    assert refused > 130


def test_the_damaged_tensor_is_named(slim, tmp_path):
    path = tmp_path / "x.safetensors"
    save_backbone(path, slim, META)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, _ = json.loads(content[8 : 8 + length])["conv1.weight"]["data_offsets"]
    content[8 + length + start] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum of conv1\.weight is wrong"):
        load_backbone(path)


def test_metadata_comes_back_without_checksums(slim, tmp_path):
    for suffix in ("pth", "safetensors"):
        save_backbone(tmp_path / f"x.{suffix}", slim, META)
        meta = load_backbone(tmp_path / f"x.{suffix}")[1].meta
        assert {**meta, **META} == meta and "checksums" not in meta


def test_writing_twice_gives_the_same_bytes(slim, tmp_path):
    hashes = {save_backbone(tmp_path / f"{n}.safetensors", slim, META) for n in range(2)}
    assert len(hashes) == 1


def test_every_kind_of_tensor_has_one(tmp_path):
    net = create_backbone("resnet10_slim").bfloat16()  # its counters are int64
    save_backbone(tmp_path / "x.safetensors", net, META)
    assert read(tmp_path / "x.safetensors").verified


def test_formats_without_checksums_are_warned_of(slim, tmp_path):
    state = dict(slim.state_dict())
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays))
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(state, tmp_path / "none.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    warned = {
        path.name: sum(UNVERIFIED in w for w in load_backbone(path)[1].warnings)
        for path in tmp_path.iterdir()
    }
    others = dict.fromkeys(("old.pth", "x.safetensors", "x.pkl", "none.pth"), 1)
    assert warned == {"zip.pth": 0, **others}
