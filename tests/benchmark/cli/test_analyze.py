"""The analysis command line: what it leaves, what it refuses, and its examples."""

import csv
import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli import analyze
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.benchmark.results.result_file import read_result
from lowbit.pretrain.trainer import Trainer

ROOT = Path(__file__).parents[3]
QUICK = """
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
def config(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return str(path)


@pytest.fixture
def checkpoints(tmp_path):
    paths = [tmp_path / "one.pth", tmp_path / "two.pth"]
    for path, method in zip(paths, ("SimSiam", "SSQL"), strict=True):
        save_backbone(path, create_backbone("resnet10_slim"), {"method": method, "data": "digits"})
    return [str(path) for path in paths]


def _rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def _is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_correlation_leaves_a_curve_its_numbers_and_the_backbone(config, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["correlation", "--config-file", config, "--output-dir", str(out), "seed", "2"]
    assert analyze.main(words) == 0
    assert _is_png(out / "correlation.png") and (out / "checkpoint.pth").is_file()
    rows = _rows(out / "correlation.csv")
    assert [row["step"] for row in rows] == ["1", "2"]
    found = json.loads((out / "correlation.json").read_text())
    sizes = [abs(float(row["rho"])) for row in rows]
    assert found["mean_abs_rho"] == pytest.approx(sum(sizes) / 2)
    assert f"mean |rho| {found['mean_abs_rho']:.4f}" in capsys.readouterr().out
    result = read_result(out)  # of the pretraining, for what reads results
    assert result.details["correlation"] == found and result.recipe["seed"] == 2
    assert (result.stage, result.checkpoint.method) == ("pretrain", "SSQL")
    assert analyze.main(words) == 1
    assert "holds an earlier run" in capsys.readouterr().err


def test_correlation_of_another_pairing_is_refused(config, tmp_path, capsys):
    out = str(tmp_path / "out")
    words = ["correlation", "--config-file", config, "--output-dir", out, "pairing", "plain"]
    assert analyze.main(words) == 1
    assert "error: " in (err := capsys.readouterr().err) and "nothing was trained" in err
    assert not (tmp_path / "out").exists()


def test_weights_leave_two_pictures_and_their_numbers(checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    assert analyze.main(["weights", *checkpoints, "--output-dir", str(out)]) == 0
    for name in ("weights_histograms", "weights_layers"):
        assert _is_png(out / f"{name}.png")
        assert {row["checkpoint"] for row in _rows(out / f"{name}.csv")} == {"SimSiam", "SSQL"}
    table = capsys.readouterr().out
    assert "kurtosis" in table and "error_4bit" in table


def test_a_quantizer_leaves_its_steps_and_its_points(checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["quantizer", "--scale", "0.3", "0.2", "--output-dir", str(out)]
    assert analyze.main(words) == 0
    assert _is_png(out / "quantizer_steps.png") and _is_png(out / "quantizer_intervals.png")
    found = json.loads((out / "quantizer.json").read_text())
    assert [round(row["transition_points"][0], 6) for row in found] == [-0.225, -0.15]
    assert "s 0.2: " in capsys.readouterr().out
    words = ["quantizer", checkpoints[0], "--policy", "lsq", "--layer", "body.9"]
    assert analyze.main([*words, "--output-dir", str(out)]) == 1
    message = capsys.readouterr().err
    assert "has no layer 'body.9'" in message and "nothing was drawn" in message
    layer = message.split("one of ")[1].split(",")[0]
    assert analyze.main([*words[:-1], layer, "--output-dir", str(tmp_path / "layer")]) == 0
    assert not (tmp_path / "layer" / "quantizer_intervals.png").exists()


def test_checkpoints_of_one_method_are_told_apart_by_their_files(checkpoints, tmp_path):
    copy = tmp_path / "copy.pth"
    copy.write_bytes(Path(checkpoints[1]).read_bytes())
    out = tmp_path / "out"
    words = ["weights", *checkpoints, str(copy), "--output-dir", str(out)]
    assert analyze.main(words) == 0
    found = {row["checkpoint"] for row in _rows(out / "weights_layers.csv")}
    assert found == {"SimSiam", checkpoints[1], str(copy)}


def test_tsne_leaves_points_accuracies_and_a_vector_picture(checkpoints, tmp_path):
    out = tmp_path / "out"
    words = ["tsne", checkpoints[0], "--dataset", "digits", "--precision", "4w4a"]
    words += ["--images", "60", "--output-dir", str(out), "--format", "svg", "--device", "cpu"]
    assert analyze.main(words) == 0
    assert "</svg>" in (out / "tsne.svg").read_text()
    points = _rows(out / "tsne.csv")
    assert len(points) == 120 and {row["precision"] for row in points} == {"FP", "4w4a"}
    found = json.loads((out / "tsne.json").read_text())
    assert [(row["precision"], row["n"]) for row in found] == [("FP", 60), ("4w4a", 60)]
    assert all(0 <= row["knn20_percent"] <= 100 for row in found)


def test_transitions_leave_pictures_and_the_numbers_of_the_jobs(tmp_path, capsys):
    part = tmp_path / "job" / "parts" / "2w2a"
    part.mkdir(parents=True)
    rates = {"rate": [0.01, 0.02], "effective_step": [0.1, 0.3], "target": 0.005, "lr": [0.2, 0.4]}
    latent = {"histogram": [[3, 1], [2, 2]], "edges": [0, 0.25, 0.5], "mean_distance": [0.2, 0.25]}
    names = {"names": ["conv1", "conv2"]}
    row = {"epoch": 0, "lr": 0.1, "loss": {"train": 1.25}, "accuracy": {"train": 50.0, "val": 45.5}}
    row |= {"transitions": names | rates | {"running": [0.003, 0.004]}, "latent": names | latent}
    (part / "metrics.jsonl").write_text(json.dumps(row) + '\n{"epoch": 1, "lr"')
    out = tmp_path / "out"
    words = ["transitions", str(tmp_path / "job"), "--output", str(out)]
    assert analyze.main(words) == 0
    assert _is_png(out / "transitions.png") and _is_png(out / "latent.png")
    found = _rows(out / "transitions.csv")
    for name in ("rate", "effective_step", "lr"):
        assert [float(line[name]) for line in found] == rates[name]
    assert [line["layer"] for line in found] == ["conv1", "conv2"]
    assert [float(line["count"]) for line in _rows(out / "latent.csv")] == [3, 1, 2, 2]
    (curve,) = _rows(out / "curves.csv")
    assert (float(curve["loss_train"]), float(curve["accuracy_val"])) == (1.25, 45.5)
    assert "45.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transitions", "none"], "there is no folder none; nothing was drawn"),
        (["weights", "none.pth"], "there is no checkpoint none.pth"),
        (["weights", "none.pth", "none.pth"], "listed twice; nothing was drawn"),
        (["tsne", "none.pth", "--dataset", "digitz"], "Did you mean 'digits'"),
        (["tsne", "none.pth", "--dataset", "digits", "--precision", "4"], "is not a precision"),
        (["quantizer", "--policy", "ssql"], "has no scale to draw; nothing was drawn"),
        (["correlation", "--config-file", "none.yaml"], "There is no file none.yaml"),
    ],
)
def test_a_mistake_is_an_error_not_a_traceback(words, message, capsys):
    assert analyze.main(words) == 1
    assert message in capsys.readouterr().err


def test_examples_parse_and_their_recipes_are_valid():
    joined = analyze.EXAMPLES.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if "lowbit-bench analyze" in line]
    assert len(lines) == 8
    for line in lines:
        args = analyze._parser(None).parse_args(shlex.split(line)[2:])
        if args.verb is analyze.correlation:
            recipe = validate("pretrain", load_yaml(ROOT / args.config_file, args.opts))
            assert recipe.pairing == "ssql"


def test_a_stopped_training_says_that_its_steps_are_lost(config, tmp_path, capsys, monkeypatch):
    step = Trainer._step

    def signalled(self, micro_batches):
        step(self, micro_batches)
        os.kill(os.getpid(), signal.SIGTERM)  # which the training notes, and saves

    monkeypatch.setattr(Trainer, "_step", signalled)
    out = tmp_path / "out"
    words = ["correlation", "--config-file", config, "--output-dir", str(out)]
    assert analyze.main(words) == 1
    assert "the steps recorded so far are lost" in capsys.readouterr().err
    assert (out / "last.pth").exists() and not (out / "correlation.png").exists()
