"""A deploy job on the networks of a transfer job."""

import json

import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from lowbit.deploy import Recipe, classifier, identity, missing_data, run
from lowbit.deploy.export_model import to_graph
from lowbit.export.runtime import RuntimeMissingError, get_runtime
from tests.onnx_operators import operators_read_once  # noqa: F401


def recipe_of(checkpoint, networks, **fields):
    fields = {"precisions": ("FP", "4w4a"), "rounds": 5, "agreement_images": 100, **fields}
    return Recipe(checkpoint=str(checkpoint), networks=str(networks), **fields)


@pytest.fixture(scope="module")
def exported():
    """The graphs of the job's networks by precision, which both runtimes run."""
    return {}


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def result(request, checkpoint, networks, exported, tmp_path_factory):
    def graph(subject):
        if subject.precision not in exported:
            exported[subject.precision] = to_graph(subject)
        return exported[subject.precision]

    recipe = recipe_of(checkpoint, networks, runtime=request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "to_graph", graph)
        return recipe, run(recipe, tmp_path_factory.mktemp("deploy"))


def values(result, precision):
    return {m["metric"]: m["value"] for m in result["measurements"] if m["precision"] == precision}


def test_every_precision_has_all_measurements(result):
    _, found = result
    assert json.loads(json.dumps(found)) == found
    full, low = values(found, "FP"), values(found, "4w4a")
    assert full.keys() == low.keys() and {m["precision"] for m in found["measurements"]} == {
        "FP",
        "4w4a",
    }
    assert low["file_bytes"] < full["file_bytes"] and low["packed_bytes"] < low["file_bytes"]
    assert full["packed_bytes"] == full["file_bytes"]
    for threads in ("1t", "allt"):
        for batch in (1, 8):
            assert low[f"latency_{threads}_b{batch}"] > 0
            assert low[f"latency_ratio_{threads}_b{batch}"] > 0
    assert full["peak_memory"] > 0
    assert all(m["n"] >= 1 for m in found["measurements"])
    assert found["details"]["compared_images"] == 100


def test_intervals_say_what_they_are(result):
    _, found = result
    kinds = {m["metric"]: m.get("interval") for m in found["measurements"]}
    assert kinds["top1"] == "wilson" and kinds["file_bytes"] is None
    timed = {metric for metric, kind in kinds.items() if kind == "quartiles"}
    assert timed == {metric for metric in kinds if metric.startswith("latency_ratio_")} != set()


def test_counted_costs_are_those_of_the_transfer_job(result, job):
    _, found = result
    assert found["costs"] == {p: job[0]["costs"][p] for p in ("FP", "4w4a")}


def test_accuracy_is_that_of_the_transfer_job_up_to_rounding_ties(result, job):
    _, found = result
    for precision in ("FP", "4w4a"):
        (scored,) = (
            m["value"]
            for m in job[0]["measurements"]
            if m["precision"] == precision and m["split"] == "test"
        )
        now = values(found, precision)
        disagreeing = 100 - min(now["agreement"], now["noise_floor"])
        assert abs(now["top1"] - scored) <= disagreeing + 2
        assert now["agreement"] >= 95


def test_layers_are_named_one_by_one(result):
    recipe, found = result
    full, low = (found["details"]["layers"][p] for p in ("FP", "4w4a"))
    assert full["integers"] == [] and "fc" in low["floats"]
    assert sorted(full["floats"]) == sorted(low["integers"] + low["floats"])
    assert values(found, "4w4a")["integer_layers"] == len(low["integers"])
    if recipe.runtime == "openvino":
        assert "backbone.layer2.0.conv2" in low["integers"]


def test_runtime_and_processor_are_facts_of_the_row(checkpoint, networks):
    facts = identity(recipe_of(checkpoint, networks))
    assert facts["policy_on_board"] is False
    assert facts["engine"] == f"openvino {get_runtime('openvino').version()}"
    assert (
        facts["processor"]
        and facts["instruction_set"]
        and facts["products"] in ("exact", "saturate")
    )
    assert (
        identity(recipe_of(checkpoint, networks, runtime="onnxruntime"))["engine"]
        != facts["engine"]
    )


def test_a_missing_runtime_skips_the_job(checkpoint, networks, monkeypatch):
    def missing(name):
        raise RuntimeMissingError(f"{name} is not installed; nothing was run. Install it.")

    monkeypatch.setattr("lowbit.deploy.recipe.get_runtime", missing)
    assert "openvino is not installed" in missing_data(recipe_of(checkpoint, networks))


def test_networks_of_another_recipe_are_refused(checkpoint, networks, tmp_path):
    with pytest.raises(ValueError, match="another policy than the recipe; nothing was measured"):
        run(recipe_of(checkpoint, networks, policy="lsq"), tmp_path)
    with pytest.raises(ValueError, match="no network at 3w3a"):
        run(recipe_of(checkpoint, networks, precisions=("3w3a",)), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"precisions": ("9w9a",)}, "more than 8 bits"),
        ({"precisions": ("8w8a", "8w8a")}, "listed twice"),
        ({"runtime": "tensorrt"}, "runtime"),
    ],
)
def test_recipes_are_checked(checkpoint, networks, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(checkpoint, networks, **fields)
