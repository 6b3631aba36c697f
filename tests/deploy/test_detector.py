"""A deploy job on the detectors of detection jobs."""

import json

import pytest
import torch

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

from lowbit.backbones import create_backbone, save_backbone
from lowbit.deploy import Recipe, identity, missing_data, run
from lowbit.deploy.detector import METRICS
from lowbit.detection import Recipe as DetectionRecipe
from lowbit.detection import exported_detector
from lowbit.detection import run as detect
from lowbit.detection.trained_detector import CALIBRATED
from lowbit.export.marks import marked_names
from lowbit.export.onnx_export import trace_network
from tests.detection.conftest import TINY
from tests.onnx_operators import operators_read_once  # noqa: F401

PRECISIONS = ("FP", "8w8a", "4w4a")
BIAS = "head.classification_head.cls_logits.bias"


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Let detectors whose pyramids differ in their quantizers alone share their traces."""
    traces = {}

    def trace(levels, example, **fields):
        state = levels.state_dict().items()
        values = [(name, x.numpy().tobytes()) for name, x in state if "_quant." not in name]
        key = marked_names(levels), *values
        if key not in traces:
            traces[key] = trace_network(levels, example, **fields)
        return traces[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported_detector, "trace_network", trace)
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "digits"})
    return str(path)


@pytest.fixture(scope="module")
def unsure(backbone, tmp_path_factory):
    """Return the recipe and the file of a detector in full precision."""
    recipe = DetectionRecipe(**{**TINY, "checkpoint": backbone})
    folder = tmp_path_factory.mktemp("unsure")
    detect(recipe, folder)
    return recipe, folder / "detector.pth"


@pytest.fixture(scope="module")
def full(unsure, tmp_path_factory):
    """Return the file of a detector in full precision that is sure of what it finds."""
    content = torch.load(unsure[1], weights_only=True)
    content["model"][BIAS] += 4
    path = tmp_path_factory.mktemp("full") / "detector.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def calibrated(full, tmp_path_factory):
    """Return a finished job that quantized it without training: (recipe, result, detector file)."""
    folder = tmp_path_factory.mktemp("calibrated")
    recipe = DetectionRecipe(
        **{
            **TINY,
            "method": "ptq",
            "precisions": PRECISIONS,
            "policy": "lsq",
            "scope": "backbone+neck",
            "detector": str(full),
        }
    )
    result = detect(recipe, folder)
    return recipe, result, folder / result["artifacts"][CALIBRATED]


def deployed(recipe, detector, **fields):
    described = recipe.model_dump(
        mode="json", exclude=set(recipe.cosmetic) | {"checkpoint", "detector"}
    )
    fields = {"precisions": PRECISIONS, "rounds": 5, **fields}
    return Recipe(detector=str(detector), detection=described, **fields)


@pytest.fixture(scope="module")
def result(calibrated, tmp_path_factory):
    recipe, _, detector = calibrated
    return run(deployed(recipe, detector), tmp_path_factory.mktemp("deploy"))


def values(result, precision):
    return {m["metric"]: m["value"] for m in result["measurements"] if m["precision"] == precision}


def test_every_precision_has_all_measurements(result):
    assert json.loads(json.dumps(result)) == result
    full, low = values(result, "FP"), values(result, "4w4a")
    assert full.keys() == low.keys() >= {*METRICS, "agreement", "noise_floor", "peak_memory"}
    assert low["packed_bytes"] < low["file_bytes"] < full["file_bytes"]
    for place in ("1t_b1", "1t_b8", "allt_b1", "allt_b8"):
        assert low[f"latency_{place}"] > 0 and low[f"latency_ratio_{place}"] > 0
    assert all(m["split"] == "test" and m["n"] >= 1 for m in result["measurements"])


def test_average_precision_in_full_precision_is_that_of_the_detection_job(result, calibrated):
    scored = {
        m["metric"]: m["value"] for m in calibrated[1]["measurements"] if m["precision"] == "FP"
    }
    found = values(result, "FP")
    compared = result["details"]["detections"]["FP"]
    assert compared["AP_of_the_simulation"] == scored["AP"]
    assert found["AP"] == pytest.approx(scored["AP"], abs=0.5)  # boxes that score nearly the same
    assert found["integer_layers"] == 0


def test_simulations_are_those_that_were_scored(result, calibrated):
    scored = {
        m["precision"]: m["value"] for m in calibrated[1]["measurements"] if m["metric"] == "AP50"
    }
    found = result["details"]["detections"]
    assert {p: each["AP50_of_the_simulation"] for p, each in found.items()} == scored


def test_agreement_is_the_share_of_detections_that_both_have(result):
    for precision in PRECISIONS:
        found, counts = values(result, precision), result["details"]["detections"][precision]
        total = counts["simulated"] + counts["exported"]
        assert counts["simulated"] > 0
        assert found["agreement"] == pytest.approx(200 * counts["shared"] / total)
        total = counts["simulated"] + counts["floor"]["float64"]
        assert found["noise_floor"] == pytest.approx(200 * counts["floor"]["shared"] / total)


def test_layers_are_those_of_the_graph_and_the_heads_are_beside_it(result):
    full, low = (result["details"]["layers"][p] for p in ("FP", "8w8a"))
    assert full["integers"] == [] and len(low["integers"]) >= 14  # all but the first
    assert sorted(full["floats"]) == sorted(low["integers"] + low["floats"])
    assert (
        values(result, "8w8a")["layers"] == len(full["floats"]) == 16
    )  # 12 of them the backbone's
    heads = result["details"]["beside_the_graph"]
    assert len(heads) == 4 and all(name.startswith("head.") for name in heads)


def test_costs_are_those_of_the_detection_job(result, calibrated):
    assert result["costs"] == calibrated[1]["costs"]
    assert result["checkpoint"] == calibrated[1]["checkpoint"]


@pytest.fixture
def memory_unmeasured(monkeypatch):
    """Start no process for each graph where its peak memory is not looked at."""
    monkeypatch.setattr("lowbit.deploy.graph_costs.peak_memory", lambda *_: 1)


def test_nothing_that_a_detector_is_sure_of_leaves_no_agreement(
    unsure, tmp_path, memory_unmeasured
):
    recipe, detector = unsure
    found = run(deployed(recipe, detector, precisions=("FP",)), tmp_path)
    assert "AP" in values(found, "FP") and "agreement" not in values(found, "FP")
    assert found["details"]["detections"]["FP"]["simulated"] == 0


def test_a_trained_detector_is_measured_beside_its_own_full_precision(
    full, tmp_path, memory_unmeasured
):
    recipe = DetectionRecipe(
        **{
            **TINY,
            "method": "lsq",
            "precision": "4w4a",
            "scope": "backbone+neck",
            "detector": str(full),
        }
    )
    scored = detect(recipe, tmp_path)
    made = deployed(recipe, tmp_path / "detector.pth", precisions=("4w4a",), runtime="onnxruntime")
    found = run(made, tmp_path)
    (ap,) = (m["value"] for m in scored["measurements"] if m["metric"] == "AP")
    assert found["details"]["detections"]["4w4a"]["AP_of_the_simulation"] == ap
    assert values(found, "4w4a")["layers"] == 16


def test_facts_of_the_row_are_the_detectors_and_the_machines(calibrated, monkeypatch):
    recipe, _, detector = calibrated
    facts = identity(made := deployed(recipe, detector))
    assert (facts["task"], facts["dataset"], facts["image_size"]) == (
        "deployment",
        "digit-scenes",
        64,
    )
    assert (facts["protocol"], facts["training"]) == (
        "retinanet of torchvision",
        "ptq, backbone+neck",
    )
    assert facts["policy"] == "lsq" and facts["engine"].startswith("openvino ")
    assert facts["policy_on_board"] is False and facts["method"] == "-"
    assert missing_data(made) is None
    absent = recipe.model_copy(update={"dataset": "coco:nowhere", "train_images": None})
    monkeypatch.setenv("LOWBIT_DATA", "/nowhere")
    assert "nowhere" in missing_data(deployed(absent, detector))


def test_a_detector_of_another_recipe_is_refused(calibrated, tmp_path):
    recipe, _, detector = calibrated
    other = recipe.model_copy(update={"fpn_channels": 64, "test_images": 5})
    with pytest.raises(ValueError, match="another test_images and fpn_channels than the recipe"):
        run(deployed(other, detector), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either the `networks` of a transfer job or the `detector`"),
        ({"networks": "a", "detector": "b"}, "either the `networks`"),
        ({"detector": "b"}, "`detector` and `detection`, the recipe that made it, belong together"),
        ({"networks": "a"}, "need the `checkpoint`"),
        ({"networks": "a", "checkpoint": "c", "policy": "sqsl"}, "sqsl"),
        ({"detector": "b", "detection": {"methd": "fp"}}, "methd"),
    ],
)
def test_recipes_name_one_source_and_describe_it(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)
