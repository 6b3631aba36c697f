"""Exported files: what they hold, what their cards say, and what is refused."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from lowbit.data import load, normalize  # noqa: E402
from lowbit.deploy import export_model as exporting  # noqa: E402
from lowbit.deploy.export_model import export_model, prepare, to_graph  # noqa: E402
from lowbit.deploy.subject import of_checkpoint, of_job  # noqa: E402
from lowbit.export.onnx_export import ExportError  # noqa: E402
from lowbit.transfer.scoring.scored_network import ScoredNetworks  # noqa: E402
from tests.onnx_operators import operators_read_once  # noqa: E402, F401


@pytest.fixture(scope="module", autouse=True)
def graphs_once():
    """Let files of one network share its graph."""
    graphs = {}

    def graph(subject):
        if subject.network not in graphs:
            graphs[subject.network] = to_graph(subject)
        return graphs[subject.network]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_graph", graph)
        yield


@pytest.fixture(scope="module")
def subject(networks, checkpoint):
    return of_job(ScoredNetworks(networks), "8w8a", checkpoint)


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def exported(request, subject, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return subject, export_model(subject, path, runtime=request.param)


def test_the_model_says_what_it_is(exported, checkpoint):
    subject, found = exported
    model = onnx.load(found.path)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["precision"] == "8w8a" and facts["policy"] == "ssql"
    assert facts["policy_fingerprint"] == subject.policy.fingerprint
    assert json.loads(facts["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(facts["mean"]) == list(subject.mean)
    assert found.size == found.path.stat().st_size
    assert sorted(p.name for p in found.path.parent.iterdir()) == ["model.md", "model.onnx"]


def test_the_check_names_every_runtime(exported):
    _, found = exported
    assert set(found.agreement.graphs) == set(found.checks) == {"openvino", "onnxruntime"}
    assert found.agreement.images == 500 and found.agreement.measure == "predictions"
    card = found.card.read_text()
    for name, check in found.checks.items():
        assert f"| {name} {check.version} |" in card


def test_the_code_of_the_card_predicts_what_the_network_predicts(exported):
    subject, found = exported
    (code,) = re.findall(r"```python\n(.*?)```", found.card.read_text(), re.DOTALL)
    assert (
        len(
            [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
        )
        <= 10
    )
    digit = load("digits", "test").images[7]
    Image.fromarray(digit.permute(1, 2, 0).numpy()).save(found.path.parent / "image.png")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=found.path.parent, capture_output=True, text=True
    )
    (found.path.parent / "image.png").unlink()
    assert done.returncode == 0, done.stderr
    logits = subject.network(normalize(digit[None], subject.mean, subject.std))
    assert done.stdout.strip() == f"[{logits.argmax().item()}]"


def test_a_backbone_gives_features(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "CHECKED_IMAGES", 100)
    subject = of_checkpoint(checkpoint, "4w4a", dataset="digits", policy="lsq", image_size=32)
    found = export_model(subject, tmp_path / "m.onnx", runtime="onnxruntime", pack=True)
    loose = export_model(subject, tmp_path / "l.onnx", runtime="onnxruntime")
    assert found.size < loose.size
    assert found.agreement.measure == "cosine" and found.agreement.graphs["onnxruntime"] > 0.98
    assert [o.name for o in onnx.load(found.path).graph.output] == ["features"]
    assert "features" in found.card.read_text()


def test_what_does_not_agree_is_not_written(subject, tmp_path, monkeypatch):
    from lowbit.export import onnxruntime_runtime

    original = onnxruntime_runtime.OnnxRuntimeSession.run
    monkeypatch.setattr(
        onnxruntime_runtime.OnnxRuntimeSession,
        "run",
        lambda self, images: [np.roll(y, 1, axis=1) for y in original(self, images)],
    )
    monkeypatch.setattr(exporting, "CHECKED_IMAGES", 100)
    with pytest.raises(ExportError, match=r"below the noise floor .* nothing was written"):
        export_model(subject, tmp_path / "model.onnx", runtime="onnxruntime")
    assert list(tmp_path.iterdir()) == []
    assert export_model(subject, tmp_path / "model.onnx", runtime="openvino").size > 0


def test_places_that_cannot_be_written_are_refused_first(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .* nothing was written"):
        prepare(tmp_path / "absent" / "model.onnx", "openvino")
    with pytest.raises(ValueError, match=r"ends in \.onnx"):
        prepare(tmp_path / "model.pth", "openvino")
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare(tmp_path / "model.onnx", "openvino")
    prepare(tmp_path / "model.onnx", "openvino", overwrite=True)
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"


def test_more_than_eight_bits_are_refused(networks, checkpoint):
    with pytest.raises(
        ExportError, match="more than 8 bits, which integer kernels do not; nothing was written"
    ):
        of_job(ScoredNetworks(networks), "9w9a", checkpoint)
    assert str(of_job(ScoredNetworks(networks), "FP", checkpoint).precision) == "FP"


def test_layers_without_integers_are_named(checkpoint, tmp_path):
    subject = of_checkpoint(checkpoint, "4w4a", dataset="digits", policy="cq", image_size=32)
    with pytest.raises(ExportError, match=r"layer1\.0\.conv2\.a_quant: "):
        export_model(subject, tmp_path / "model.onnx", runtime="openvino")
    assert list(tmp_path.iterdir()) == []
