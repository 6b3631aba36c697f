"""Reading files: damaged ones, foreign ones, and pickles that try to run code."""

import argparse
import enum
import os
import pathlib
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from lowbit.backbones import CheckpointError, load_backbone, save_backbone
from lowbit.backbones.checkpoints.read_file import read, write

META = {"method": "SimSiam", "data": "digits"}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.9])
def test_refuses_files_cut_short(slim, tmp_path, suffix, keep):
    path = tmp_path / f"x.{suffix}"
    save_backbone(path, slim, META)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load_backbone(path)


@pytest.mark.parametrize("place", [100, 0.5])
def test_refuses_a_damaged_archive(slim, tmp_path, place):
    torch.save(slim.state_dict(), tmp_path / "x.pth")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    at = int(place * len(content)) if place < 1 else place  # among the weights, or the names
    content[at] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3, "state_dict": {}}])
def test_refuses_a_file_without_tensors(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read(tmp_path / "x.pth")


def test_refuses_what_is_no_mapping(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds a tensor, not named tensors"):
        read(tmp_path / "x.pth")


class _Payload:
    """Leaves a file behind where it is run."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "arrays"])
def test_never_runs_what_is_in_a_file(kind, tmp_path):
    mark, path = tmp_path / "it-ran", tmp_path / "x.pkl"
    content = {"state_dict": {"conv1.weight": torch.zeros(2)}, "args": _Payload(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(_Payload(mark)))
    elif kind == "arrays":
        path.write_bytes(pickle.dumps({"model": {"w": np.zeros(2)}, "x": _Payload(mark)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match="no code in it was run"):
        load_backbone(path, "resnet10_slim")
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Payload(mark)))  # which would have run
    assert mark.exists()


def test_settings_beside_the_weights_do_not_matter(slim, tmp_path):
    content = {
        "state_dict": slim.state_dict(),
        "args": argparse.Namespace(lr=1, out=pathlib.PurePosixPath("x"), best=np.float64(0.5)),
        "history": np.zeros(3),
    }
    torch.save(content, tmp_path / "x.pth")
    assert load_backbone(tmp_path / "x.pth", "resnet10_slim")[1].share == 1


def test_settings_of_packages_that_are_not_here_do_not_matter(slim, tmp_path, monkeypatch):
    package = types.ModuleType("pytorch_lightning")
    package.Node = type("Node", (), {"__module__": "pytorch_lightning"})
    package.Kind = enum.Enum("Kind", {"A": 1}, module="pytorch_lightning")
    node = package.Node()
    node.kind, node.type, node.content = package.Kind.A, package.Node, {"lr": [1, 2]}
    content = {"state_dict": slim.state_dict(), "hyper_parameters": node, "as": {package.Node: 1}}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", package)
        torch.save(content, tmp_path / "x.ckpt")
    assert load_backbone(tmp_path / "x.ckpt", "resnet10_slim")[1].share == 1
    assert "pytorch_lightning" not in sys.modules


def test_a_refusal_names_the_class(tmp_path):
    torch.save({"w": torch.zeros(1), "x": enum.Flag}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"names enum\.Flag, .*no code in it was run"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_both_formats_of_torch(slim, tmp_path, zipped):
    torch.save(slim.state_dict(), tmp_path / "x.tar", _use_new_zipfile_serialization=zipped)
    assert load_backbone(tmp_path / "x.tar")[1].share == 1


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_pickled_arrays_and_nothing_else(slim, tmp_path, protocol):
    arrays = OrderedDict((k, v.numpy()) for k, v in slim.state_dict().items())
    data = {"model": arrays, "__author__": "x", "matching_heuristics": True}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    loaded, report = load_backbone(tmp_path / "x.pkl")
    assert report.architecture == "resnet10_slim"
    assert all(torch.equal(v, slim.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_online_networks_come_before_momentum_networks(tmp_path):
    torch.save({"target": {"a": torch.zeros(1)}, "online": {"a": torch.ones(1)}}, tmp_path / "x")
    assert list(read(tmp_path / "x").containers) == ["online", "target"]


def test_a_file_that_contains_itself_ends(tmp_path):
    data = {"w": torch.zeros(1)}
    data["again"] = data
    torch.save(data, tmp_path / "x.pth")
    assert "w" in read(tmp_path / "x.pth").containers[""]


def test_the_optimizers_state_is_no_network(slim, tmp_path):
    torch.save({"model": slim.state_dict(), "optimizer": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    assert list(read(tmp_path / "x.pth").containers) == ["model"]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was loaded"):
        read(tmp_path / "none.pth")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
