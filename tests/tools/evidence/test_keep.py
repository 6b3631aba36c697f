"""What is kept of a suite's results says nothing of the machine, and nothing is kept of half a suite."""

import pytest

from lowbit.benchmark.planning.job import Label
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.result_file import read_result, write_result
from lowbit.tools.evidence.keep import keep, portable
from tests.benchmark.result_folders import make_result

SUITE = """
name: two
seeds: [0, 1]
precisions: [FP]
checkpoints:
  - {name: mine, path: mine.pth, architecture: resnet10_slim}
transfer:
  - {recipe: linear.yaml}
"""
LINEAR = "{name: linear, dataset: digits, protocol: linear-exact, image_size: 16}"


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "linear.yaml").write_text(LINEAR)
    (tmp_path / "mine.pth").write_bytes(b"weights")
    path = tmp_path / "two.yaml"
    path.write_text(SUITE)
    return path


def _run(suite, runs, **changes):
    for name in list(plan(suite, ()).jobs)[: changes.pop("first", None)]:
        (runs / name).mkdir(parents=True)
        write_result(runs / name, make_result(name, **changes))


def test_every_job_is_kept_under_the_suites_name(suite, tmp_path):
    _run(suite, tmp_path / "runs")
    assert keep(suite, tmp_path / "runs", tmp_path / "evidence") == 2
    kept = sorted(path.name for path in (tmp_path / "evidence" / "two").iterdir())
    assert kept == sorted(plan(suite, ()).jobs)


@pytest.mark.parametrize("changes", [{"first": 1}, {"status": "failed", "reason": "no memory"}])
def test_nothing_is_kept_while_a_job_is_missing_or_failed(suite, tmp_path, changes):
    _run(suite, tmp_path / "runs", **changes)
    with pytest.raises(ValueError, match=r"no completed result of .*; nothing was kept"):
        keep(suite, tmp_path / "runs", tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def test_a_result_says_nothing_of_the_machine_and_keeps_its_numbers(tmp_path):
    made = make_result(
        "0" * 12,
        recipe={"seed": 3, "checkpoint": "/home/me/runs/a.pth", "dataset": "folder:a/b"},
        inputs={"checkpoint": {"path": "/home/me/runs/a.pth", "sha256": "a" * 64, "job_id": "1"}},
        artifacts={"predictions": "predictions.parquet"},
        artifact_sha256={"predictions": "b" * 64},
        details={"load_report": {"format": "moco"}, "transitions": {"2w2a": {"gap": [0.5]}}},
    )
    kept = portable(made, Label("SSQL seed 1", pretraining="SSQL", pretrain_seed=1))
    write_result(tmp_path, kept)
    assert read_result(tmp_path) == kept
    assert kept.inputs["checkpoint"].path == kept.recipe["checkpoint"] == "a.pth"
    assert (kept.recipe["dataset"], kept.recipe["seed"]) == ("folder:a/b", 3)
    assert kept.inputs["checkpoint"].sha256 == "a" * 64
    assert kept.details == {"transitions": {"2w2a": {"gap": [0.5]}}}
    found = kept.checkpoint
    assert (found.name, found.pretraining, found.pretrain_seed) == ("SSQL seed 1", "SSQL", 1)
    assert found.architecture == made.checkpoint.architecture
    assert kept.measurements == made.measurements and not kept.artifacts
