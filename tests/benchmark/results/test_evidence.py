"""The results kept under docs/evidence: of the suite they are named after, whole, and as the docs say."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.result_file import find_results
from lowbit.detection.recipe import Recipe as DetectionRecipe
from lowbit.detection.trained_detector import INPUTS
from lowbit.transfer.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path for path in (ROOT / "docs" / "evidence").iterdir() if path.is_dir())
LOCAL = {  # fields that say where things are, by stage
    "transfer": Recipe.cosmetic | {"checkpoint"},
    "detection": DetectionRecipe.cosmetic | INPUTS,
}
TRAININGS = {
    "SGDT, `lambda_: natural`": "sgdt-natural",
    "SGDT, `controller: scaled`": "sgdt-scaled",
    "SGDT, `highest: 1`": "sgdt-upto1",
    "SGDT, all three": "sgdt-natural-scaled-upto1",
} | {name: name.lower() for name in ("SGD", "SGDT", "Adam", "AdamT", "AdamW", "AdamWT")}


def _decisive(stage, recipe):
    kept = recipe.keys() - LOCAL[stage]
    return stage, json.dumps({key: recipe[key] for key in kept}, sort_keys=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_evidence_is_every_job_of_its_suite(folder):
    results = [r for r in find_results(folder) if r.stage in LOCAL]
    assert {r.status for r in results} == {"completed"}
    jobs = plan(ROOT / "configs" / "suites" / f"{folder.name}.yaml", ()).jobs.values()
    asked = [_decisive(job.stage, job.recipe) for job in jobs if job.stage in LOCAL]
    assert sorted(_decisive(r.stage, r.recipe) for r in results) == sorted(asked)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_evidence_has_results_and_no_weights(folder):
    files = [
        path for path in folder.rglob("*") if path.is_file() and "leaderboard" not in path.parts
    ]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".parquet"}
    assert sum(path.stat().st_size for path in files) < 4e6
    for result in find_results(folder):
        assert not any("/" in record.path for record in result.inputs.values())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_evidence_has_what_every_score_started_from(folder):
    results = {result.job_id: result for result in find_results(folder)}
    made = [r.job_id for each in results.values() for r in each.inputs.values() if r.job_id]
    assert made and set(made) <= set(results)


def test_the_table_of_transition_rates_is_made_of_the_evidence():
    found = {}
    for result in find_results(ROOT / "docs" / "evidence" / "pocket_tr"):
        for measured in result.measurements:
            if (measured.precision, measured.split) == ("2w2a", "test"):
                seeds = found.setdefault(result.identity["training"], {})
                seeds[result.recipe["seed"]] = measured.value
    text = (ROOT / "docs" / "reproduction.md").read_text()
    shown = re.findall(r"^\| (\S[^|]*) \| ([\d.]+) \| (\d\d\.\d\d, [\d., ]+) \|", text, re.M)
    assert {name for name, _, _ in shown} == set(TRAININGS)
    for name, average, seeds in shown:
        values = found[TRAININGS[name]]
        assert seeds == ", ".join(f"{values[seed]:.2f}" for seed in range(3))
        assert average == f"{mean(values.values()):.1f}"
