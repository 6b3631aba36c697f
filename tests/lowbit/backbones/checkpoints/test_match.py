"""Several copies of a network in one file: which is taken, how that is said, how to take another."""

import pytest
import torch

from lowbit.backbones import CheckpointError, create_backbone, load_backbone
from lowbit.benchmark.cli.checkpoint import main


def prefixed(state, prefix):
    return {prefix + k: v for k, v in state.items()}


FILES = {  # name -> (a file of two copies, where the one taken is, where the other is)
    "MoCo": (
        lambda a, b: {"state_dict": prefixed(a, "encoder_q.") | prefixed(b, "encoder_k.")},
        "state_dict.encoder_q",
        "state_dict.encoder_k",
    ),
    "containers of any name": (lambda a, b: {"first": a, "second": b}, "first", "second"),
    "an average": (lambda a, b: {"ema": b, "weights": prefixed(a, "net.")}, "weights.net", "ema"),
    "a prefix of no layout": (
        lambda a, b: prefixed(b, "slow.copy.") | prefixed(a, "model."),
        "model",
        "slow.copy",
    ),
    "one wrapped": (lambda a, b: prefixed(b, "module.") | a, "", "module"),
    "another naming": (
        lambda a, b: {"x": a, "y": {k.replace("downsample", "shortcut"): v for k, v in b.items()}},
        "x",
        "y",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_of_two_copies_the_report_says_which_was_taken_and_the_other_can_be(kind, slim, tmp_path):
    make, taken, other = FILES[kind]
    state = slim.state_dict()
    torch.save(make(state, {k: v + 1 for k, v in state.items()}), path := tmp_path / "x.pth")
    net, report = load_backbone(path)
    assert (report.architecture, report.prefix, report.copies) == ("resnet10_slim", taken, (other,))
    assert f"taken from {taken!r}; another whole copy is at {other!r}" in str(report)
    assert f"prefix={other!r}" in str(report)
    weight = "layer4.0.conv2.weight"
    assert torch.equal(net.state_dict()[weight], state[weight])

    net, report = load_backbone(path, prefix=other)
    assert (report.prefix, report.copies) == (other, (taken,))
    assert torch.equal(net.state_dict()[weight], state[weight] + 1)


def test_equal_copies_are_one(slim, tmp_path):
    state = slim.state_dict()
    torch.save(prefixed(state, "net.") | prefixed(state, "online_encoder.net."), tmp_path / "x.pth")
    assert load_backbone(tmp_path / "x.pth")[1].copies == ()


def test_a_deeper_network_is_no_copy(tmp_path):
    small, deep = (create_backbone(name).state_dict() for name in ("resnet8", "resnet14"))
    torch.save({"student": small, "distilled_from": deep}, tmp_path / "x.pth")
    report = load_backbone(tmp_path / "x.pth", "resnet8")[1]
    assert (report.prefix, report.copies) == ("student", ())


@pytest.mark.parametrize("architecture", ["resnet10_slim", None])
def test_a_copy_at_a_place_of_no_layout_is_refused_and_named(architecture, slim, tmp_path):
    torch.save({"a": prefixed(slim.state_dict(), "b.c.")}, path := tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"nothing was loaded.*prefix='a\.b\.c'"):
        load_backbone(path, architecture)
    _, report = load_backbone(path, architecture, prefix="a.b.c.")
    assert report.architecture == "resnet10_slim" and report.share == 1
    with pytest.raises(CheckpointError, match=r"nothing was loaded.*prefix='a\.b\.c'"):
        load_backbone(path, architecture, prefix="b.c")


def test_the_command_line_takes_a_copy(slim, tmp_path, capsys):
    make, _, other = FILES["MoCo"]
    state = slim.state_dict()
    torch.save(make(state, {k: v + 1 for k, v in state.items()}), path := tmp_path / "x.pth")
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "taken from    'state_dict.encoder_q'" in out and "--prefix state_dict.encoder_k" in out
    assert main(["convert", str(path), "--to", "safetensors", "--prefix", other]) == 0
    net, report = load_backbone(tmp_path / "x.safetensors")
    assert torch.equal(net.conv1.weight, state["conv1.weight"] + 1) and not report.copies
    assert report.meta["converted_from"]["prefix"] == other
