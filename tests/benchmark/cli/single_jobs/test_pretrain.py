"""The pretraining command line: what it leaves, what it refuses, and how it goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowbit.backbones import load_backbone
from lowbit.benchmark.cli.single_jobs.pretrain import main
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate

ROOT = Path(__file__).parents[4]
RECIPE = """
name: tiny
architecture: resnet10_slim
dataset: digits
image_size: 16
pairing: ssql
epochs: 1
batch_size: 512
dim: 8
hidden_dim: 4
device: cpu
"""


@pytest.fixture
def words(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    config = str(tmp_path / "tiny.yaml")
    return ["--config-file", config, "--output-dir", str(tmp_path / "out")]


def test_it_leaves_a_backbone_and_the_measurements(words, tmp_path, capsys):
    assert main([*words, "lr", "1e-2"]) == 0
    _, report = load_backbone(tmp_path / "out" / "checkpoint.pth")
    assert report.meta["method"] == "SSQL" and report.meta["config"]["lr"] == 0.01
    outcome = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert outcome["checkpoint"]["sha256"] == report.sha256
    assert "checkpoint.pth" in capsys.readouterr().out


def test_an_earlier_run_is_kept_unless_resumed(words, capsys):
    assert main([*words, "epochs", "0"]) == 0
    assert main(words) == 1
    assert "nothing was trained. Add --resume" in capsys.readouterr().err
    assert main([*words[:4], "--resume", "epochs", "0"]) == 0


def test_a_wrong_key_is_answered_with_the_right_one(words, tmp_path, capsys):
    assert main([*words, "pairring", "ssql"]) == 1
    error = capsys.readouterr().err
    assert "Did you mean 'pairing'" in error and "nothing was run" in error
    assert not (tmp_path / "out").exists()


def test_a_missing_image_set_is_an_error_not_a_traceback(words, tmp_path, capsys):
    assert main([*words, "dataset", "cifar10", "data_root", str(tmp_path)]) == 1
    assert "CIFAR10 is not complete" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_stop_with_exit_code_75_and_go_on(words, tmp_path):
    """The real command: a signal to the one that launched the others, then --resume."""
    command = [sys.executable, ROOT / "tools" / "pretrain.py", *words, "--num-gpus", "2"]
    options = {
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
        "stderr": subprocess.PIPE,
        "text": True,
    }
    overrides = ["epochs", "300", "checkpoint_every", "300"]
    process = subprocess.Popen([*command, *overrides], **options)
    metrics = tmp_path / "out" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped by signal" in said and "with --resume" in said
    done = len(metrics.read_text().splitlines())
    resumed = subprocess.Popen([*command, "--resume", *overrides], **options)
    while len(metrics.read_text().splitlines()) <= done and resumed.poll() is None:
        time.sleep(0.05)
    resumed.terminate()
    _, said = resumed.communicate(timeout=60)
    assert resumed.returncode == 75 and f"resumed from {tmp_path}" in said, said


def test_a_wrong_recipe_starts_no_processes(words, monkeypatch, capsys):
    monkeypatch.setattr(
        "lowbit.benchmark.executors.launch_processes.launch",
        lambda *a, **k: pytest.fail("launched"),
    )
    assert main([*words[:4], "--num-gpus", "2", "pairring", "ssql"]) == 1
    assert "Did you mean 'pairing'" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "pretrain").glob("*.yaml")))
def test_every_recipe_is_valid_and_says_what_it_is(path):
    recipe = validate("pretrain", load_yaml(path), source=path)
    assert recipe.name == path.stem
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Paper", "Command", "Published", "Cost"):
        assert any(line.startswith(f"# {word} ") for line in header), f"{path.name} has no {word}"
