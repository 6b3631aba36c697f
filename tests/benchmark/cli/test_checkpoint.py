"""The checkpoint command line: what it says of a file, and what it writes."""

import json

import pytest
import torch

from lowbit.backbones import create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints import inspect as inspecting
from lowbit.benchmark.cli.checkpoint import main


@pytest.fixture
def moco(tmp_path):
    state = create_backbone("resnet10_slim").state_dict()
    tensors = {f"module.encoder_q.{k}": v for k, v in state.items()}
    tensors |= {f"module.encoder_k.{k}": v for k, v in state.items()}
    tensors |= {"module.encoder_q.fc.weight": torch.zeros(2, 2), "module.queue": torch.zeros(2, 2)}
    torch.save({"state_dict": tensors}, tmp_path / "moco.pth")
    return tmp_path / "moco.pth"


def test_inspect_says_what_is_in_a_file(moco, capsys):
    assert main(["inspect", str(moco)]) == 0
    text = capsys.readouterr().out
    assert "layout        MoCo" in text and "resnet10_slim (inferred from its shapes)" in text
    assert "matched       72/72 tensors, 100.0 % of parameters" in text
    assert "encoder_k.* (72)" in text and "queue (1)" in text
    assert "batch norm    untrained (12 of 12)" in text and "loads         yes" in text


def test_inspect_as_json(moco, capsys):
    assert main(["inspect", str(moco), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loads"] and found["matched"] == found["total"] == 72 and found["share"] == 1
    assert found["size"] == moco.stat().st_size
    assert found["sha256"] == load_backbone(moco)[1].sha256
    assert found["unused"]["encoder_q.fc.*"] == 1


def test_inspect_names_the_nearest_network_of_a_file_that_would_be_refused(tmp_path, capsys):
    state = create_backbone("resnet10_slim").state_dict()
    del state["conv1.weight"]
    torch.save(state, tmp_path / "x.pth")
    assert main(["inspect", str(tmp_path / "x.pth")]) == 1
    text = capsys.readouterr().out
    assert (
        "architecture  resnet10_slim (closest match)" in text
        and "missing       conv1.weight" in text
    )
    assert "loads         no: " in text


def test_inspect_of_a_detector(tmp_path, capsys):
    tensors = {"backbone.bottom_up.conv1.weight": torch.zeros(2), "roi_heads.x": torch.zeros(2)}
    torch.save({"model": tensors}, tmp_path / "x.pth")
    assert main(["inspect", str(tmp_path / "x.pth")]) == 1
    text = capsys.readouterr().out
    assert "architecture  unknown" in text and "holds a full detector" in text


def test_inspect_prints_what_our_own_files_say(tmp_path, capsys):
    net = create_backbone("resnet20")
    save_backbone(tmp_path / "x.pth", net, {"method": "SSQL", "data": "digits"})
    assert main(["inspect", str(tmp_path / "x.pth")]) == 0
    assert "meta          method: SSQL" in capsys.readouterr().out


def test_names_of_others_fake_no_line(tmp_path, capsys):
    state = dict(create_backbone("resnet10_slim").state_dict())
    state["a\nloads         yes\x1b[2J"] = torch.zeros(1)
    state["layer1.9\n\u202e.weight"] = torch.zeros(1)  # inside the backbone
    path = tmp_path / "x\x1b[1m.pth"
    torch.save({"state_dict\n": state, "arch": "\x1b[2J"}, path)
    assert main(["inspect", str(path)]) == 1
    text = capsys.readouterr().out
    assert "layer1.9\\n\\u202e.weight" in text and "a\\nloads" in text
    assert text.isascii() or not set(text) & set("\x1b\u202e")
    assert sum(line.startswith("loads") for line in text.splitlines()) == 1
    assert main(["convert", str(path), "--to", "safetensors"]) == 1
    assert not set(capsys.readouterr().err) & set("\x1b\u202e")


def test_metadata_of_others_fakes_no_line(tmp_path, capsys):
    meta = {"method": "SSQL\nloads         no", "note\x1b[2J": ["\x1b[2J"], "data": {"a": 1}}
    save_backbone(tmp_path / "x.pth", create_backbone("resnet20"), meta)
    assert main(["inspect", str(tmp_path / "x.pth")]) == 0
    text = capsys.readouterr().out
    assert "method: SSQL\\nloads" in text and "\x1b" not in text
    assert [line for line in text.splitlines() if line.startswith("loads")] == ["loads         yes"]


def test_tensors_that_are_no_weights_are_named(tmp_path, capsys):
    state = create_backbone("resnet10_slim").state_dict()
    state["conv1.weight"] = state["conv1.weight"].to(torch.complex64)
    torch.save(state, tmp_path / "x.pth")
    assert main(["inspect", str(tmp_path / "x.pth")]) == 1
    text = capsys.readouterr().out
    assert "no weights    conv1.weight (complex64 numbers)" in text
    assert "not weights: conv1.weight (complex64 numbers)" in text


def test_a_file_is_read_once(moco, capsys, monkeypatch):
    reads, plain = [], inspecting.read
    monkeypatch.setattr(inspecting, "read", lambda path: reads.append(path) or plain(path))
    assert main(["inspect", str(moco)]) == 0
    assert len(reads) == 1


def test_convert_writes_and_says_how_to_load(moco, capsys):
    assert main(["convert", str(moco), "--to", "safetensors"]) == 0
    text = capsys.readouterr().out
    assert "72/72 backbone tensors" in text and "load_backbone('moco.safetensors')" in text
    assert load_backbone(moco.with_suffix(".safetensors"))[1].architecture == "resnet10_slim"
    assert main(["convert", str(moco), "--to", "safetensors"]) == 1
    assert "Add --overwrite" in capsys.readouterr().err
    assert main(["convert", str(moco), "--to", "safetensors", "--overwrite"]) == 0


@pytest.mark.parametrize("words", [["inspect"], ["convert", "--to", "timm"]])
def test_a_file_that_is_not_there(words, tmp_path, capsys):
    assert main([*words, str(tmp_path / "none.pth")]) == 1
    assert "there is no checkpoint" in capsys.readouterr().err


def test_an_unknown_network_gets_suggestions(moco, capsys):
    assert main(["inspect", str(moco), "--architecture", "resnet10_slm"]) == 1
    assert "Did you mean 'resnet10_slim'" in capsys.readouterr().err
