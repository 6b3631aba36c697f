"""The check of a checkpoint file, as a user asks for it."""

import json

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.checkpoint_check import check as checking
from lowbit.benchmark.cli.check import main


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    fewer = {**checking.check.__kwdefaults__, "precisions": ("FP", "4w4a")}
    monkeypatch.setattr(checking.check, "__kwdefaults__", fewer)
    torch.manual_seed(0)
    save_backbone(tmp_path / "net.pth", create_backbone("resnet10_slim"), {"method": "-"})
    return tmp_path / "net.pth"


def test_a_sound_file_exits_0_with_a_line_a_finding_and_a_record(checkpoint, tmp_path, capsys):
    code = main([str(checkpoint), "--json", str(tmp_path / "found.json")])
    output = capsys.readouterr().out
    assert code == 0, output
    lines = [line for line in output.splitlines() if line[:1].strip()]
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "load",
        "quantize (ssql)",
        "FP",
        "4w4a",
        "detection",
    ]
    assert lines[-1].startswith("Nothing failed")
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["passed"] is True and len(record["findings"]) == 5
    assert record["findings"][3]["numbers"]["weights"] == 12


def test_a_failure_exits_1(tmp_path, capsys):
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pth")
    assert main([str(tmp_path / "wrong.pth")]) == 1
    output = capsys.readouterr().out
    assert "load             FAILED" in output
    assert output.rstrip().splitlines()[-1].startswith("Failed: load.")


def test_names_of_others_fake_no_line(tmp_path, capsys):
    torch.save({"\x1b[2J\nNothing failed": torch.zeros(1)}, tmp_path / "wrong.pth")
    assert main([str(tmp_path / "wrong.pth")]) == 1
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\nNothing failed" not in output


def test_a_file_that_contains_itself_ends(tmp_path, capsys):
    knot = {"a": torch.zeros(1)}
    knot |= {"b": knot, "c": [knot], "d": {"e": knot}}
    torch.save(knot, tmp_path / "wrong.pth")
    assert main([str(tmp_path / "wrong.pth")]) == 1


def test_a_wrong_policy_is_one_line(checkpoint, capsys):
    assert main([str(checkpoint), "--policy", "sqsl"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
