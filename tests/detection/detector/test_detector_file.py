"""Detector files: everything in them fits, or nothing is loaded."""

import pytest
import torch
from torch import nn

from lowbit.detection.detector.detector_file import (
    read_detector,
    restore_detector,
    save_detector,
    write_atomically,
)

META = {"engine": "torchvision", "precision": "FP"}


@pytest.fixture
def saved(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    sha256 = save_detector(tmp_path / "detector.pth", net, META)
    return tmp_path / "detector.pth", net, sha256


def test_a_file_gives_back_every_tensor_and_its_meta(saved):
    path, net, sha256 = saved
    state, meta = read_detector(path, engine="torchvision")
    assert meta == {**META, "sha256": sha256}
    twin = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    restore_detector(twin, state, source="file")
    for name, tensor in net.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor)


def test_the_other_engine_is_refused_by_name(saved):
    with pytest.raises(ValueError, match=r"trained by engine 'torchvision'.*nothing was loaded"):
        read_detector(saved[0], engine="detectron2")


def test_a_missing_a_broken_and_a_foreign_file_are_refused(tmp_path, backbone_file):
    with pytest.raises(FileNotFoundError, match="there is no detector file"):
        read_detector(tmp_path / "none.pth", engine="torchvision")
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"half\.pth cannot be read.*nothing was loaded"):
        read_detector(tmp_path / "half.pth", engine="torchvision")
    with pytest.raises(ValueError, match="a backbone file belongs under `checkpoint`"):
        read_detector(backbone_file, engine="torchvision")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("0.bias"), "1 missing (as 0.bias)"),
        (lambda s: s.update(extra=torch.ones(1)), "1 left over (as extra)"),
        (lambda s: s.update({"0.bias": torch.ones(3)}), "1 of another shape (as 0.bias)"),
    ],
)
def test_one_tensor_amiss_and_nothing_is_loaded(saved, change, told):
    path, net, _ = saved
    state, _ = read_detector(path, engine="torchvision")
    for tensor in state.values():
        tensor.zero_()
    change(state)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        restore_detector(net, state, source="the file")
    assert told in str(caught.value) and "nothing was loaded" in str(caught.value)
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in before)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.pth", {"x": 1})
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_atomically(tmp_path / "a.pth", {"x": 2})
    assert torch.load(tmp_path / "a.pth", weights_only=True) == {"x": 1}
