"""`lowbit-bench export`: the command line, and one message for each bad input."""

import pytest
import torch

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli import export as cli_export
from lowbit.benchmark.cli import main
from lowbit.benchmark.cli.single_jobs import transfer
from lowbit.deploy.agreement import Agreement
from lowbit.deploy.export_model import ExportedFile
from lowbit.deploy.model_card import RuntimeCheck
from lowbit.export.runtime import RuntimeMissingError
from tests.onnx_operators import operators_read_once  # noqa: F401

CONFIG = "configs/transfer/digits_linear.yaml"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


@pytest.fixture(scope="module")
def job(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "linear"
    overrides = ["checkpoint", str(checkpoint), "epochs", "5", "milestones", "[3]", "lr", "1.0"]
    words = ["--config-file", CONFIG, "--output-dir", str(folder), *overrides]
    assert transfer.main([*words, "precisions", "[FP, 8w8a]"]) == 0
    return folder


def export(*words):
    return main(["export", *map(str, words)])


def test_a_network_of_a_job_is_written_with_its_card(checkpoint, job, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    assert export(checkpoint, "--precision", "8w8a", "--result", job, "-o", path) == 0
    said = capsys.readouterr().out
    assert f"model    {path}" in said and "predictions on 500 test images" in said
    assert "openvino" in said and "onnxruntime" in said
    assert "# model.onnx" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "8w8a"], "Give --data NAME, whose training images set the ranges, or --result"),
        (["--precision", "8w8a", "--result", "JOB", "--policy", "lsq"], "--policy cannot be chosen"),
        (["--precision", "3w3a", "--result", "JOB"], "no network at 3w3a; nothing was loaded. It has FP, 8w8a"),
        (["--precision", "8w8a", "--result", "."], "holds no finished job; nothing was written"),
        (["--precision", "9w9a", "--data", "digits"], "more than 8 bits"),
        (["--precision", "eight", "--data", "digits"], "'eight' is not a precision"),
        (["--precision", "8w8a", "--data", "digit"], "Did you mean 'digits'"),
        (["--precision", "8w8a", "--data", "digits", "--policy", "sql"], "Did you mean 'ssql'"),
        (["--precision", "4w4a", "--data", "digits", "--policy", "cq"], "layer1.0.conv2.a_quant: "),
    ],
)  # fmt: skip
def test_bad_input_gets_one_message_and_no_file(words, message, checkpoint, job, tmp_path, capsys):
    words = [job if word == "JOB" else word for word in words]
    assert export(checkpoint, *words, "-o", tmp_path / "model.onnx") == 1
    said = capsys.readouterr().err
    assert message in said and said.count("error: ") == 1 and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_runtime_folder_or_file_is_said_before_any_work(
    checkpoint, tmp_path, monkeypatch, capsys
):
    from lowbit.deploy import export_model

    words = [checkpoint, "--precision", "8w8a", "--data", "digits"]
    assert export(*words, "-o", tmp_path / "absent" / "model.onnx") == 1
    assert "there is no folder" in capsys.readouterr().err
    assert export("nowhere.pth", *words[1:], "-o", tmp_path / "model.onnx") == 1
    assert "nowhere.pth" in capsys.readouterr().err

    def missing(name):
        raise RuntimeMissingError(
            f"{name} is not installed; nothing was run. Install it: pip install it."
        )

    monkeypatch.setattr(export_model, "get_runtime", missing)
    assert export(*words, "-o", tmp_path / "model.onnx") == 1
    assert "openvino is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_job_without_networks_is_refused(checkpoint, tmp_path, capsys):
    folder, config = tmp_path / "knn", "configs/transfer/digits_knn.yaml"
    words = ["--config-file", config, "--output-dir", str(folder)]
    assert transfer.main([*words, "checkpoint", str(checkpoint), "precisions", "[FP]"]) == 0
    capsys.readouterr()
    assert (
        export(checkpoint, "--precision", "FP", "--result", folder, "-o", tmp_path / "m.onnx") == 1
    )
    assert "left no network to export; nothing was written" in capsys.readouterr().err


def test_what_decides_otherwise_than_the_simulation_is_said(tmp_path, capsys):
    agreement = Agreement(500, 0.998, {"openvino": 0.997999, "onnxruntime": 0.9978}, "cosine")
    checks = {name: RuntimeCheck("1.0", ["conv"], []) for name in agreement.graphs}
    path = tmp_path / "model.onnx"
    cli_export._report(
        ExportedFile(path, path.with_suffix(".md"), 9, agreement, checks), "openvino"
    )
    said = [line for line in capsys.readouterr().out.splitlines() if "decides otherwise" in line]
    assert len(said) == 1 and said[0].split()[0] == "onnxruntime"
