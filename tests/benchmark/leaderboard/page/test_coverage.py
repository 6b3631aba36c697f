"""Every planned cell has a state, and what gave no number a reason."""

import json
import os
import time

import pytest

from lowbit.benchmark.leaderboard.page import coverage
from lowbit.benchmark.planning.plan_file import PlannedJob, PlannedSuite
from lowbit.benchmark.results.job_lock import Claim
from lowbit.benchmark.results.result_file import Result, write_result
from tests.benchmark.board_frames import failure, make_frame, row
from tests.benchmark.page_sources import make_source

FACTS = {"dataset": "digits", "protocol": "linear", "engine": "torch", "training": None}


def _job(job_id, precisions=("FP", "4w4a"), seed=0, **changes):
    fields = {"stage": "transfer", "title": job_id, "checkpoint": "new", "method": "SSQL"}
    facts = {**FACTS, "seed": seed}
    return PlannedJob(
        job_id,
        **{**fields, "architecture": "-", "precisions": precisions, "facts": facts, **changes},
    )


def _content(rows, jobs, folder):
    suite = PlannedSuite("demo", tuple(jobs))
    return coverage.content(make_source(rows, planned=[suite], runs_dir=folder))


def _cells(content, checkpoint):
    (found,) = (row for row in content["rows"] if row["checkpoint"] == checkpoint)
    states = [
        cell and {s: n for s, n in zip(content["states"], cell, strict=True) if n}
        for cell in found["cells"]
    ]
    return dict(zip(content["precisions"], states, strict=True))


@pytest.fixture
def result():
    """Write a result into a job's folder."""

    def write(folder, **changes):
        fields = {"schema_version": 2, "question": "0" * 12, "stage": "transfer"}
        fields |= {"protocol_version": 1, "status": "failed", "reason": "broken", "recipe": {}}
        fields |= {
            "precisions": ("FP",),
            "inputs": {},
            "identity": {},
            "checkpoint": {"name": "new"},
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_result(folder, Result.model_validate({**fields, "job_id": folder.name, **changes}))

    return write


def test_a_job_that_nobody_began_is_waiting(tmp_path):
    content = _content([row()], [_job("a" * 12)], tmp_path)
    assert _cells(content, "new") == {"FP": {"waiting": 1}, "4w4a": {"waiting": 1}}
    assert content["suites"] == [{"name": "demo", "jobs": [0, 0, 1, 0, 0]}]


def test_a_claimed_job_is_running(tmp_path):
    claim = Claim.take(tmp_path / ("a" * 12))
    content = _content([row()], [_job("a" * 12), _job("b" * 12, seed=1)], tmp_path)
    assert _cells(content, "new")["4w4a"] == {"running": 1, "waiting": 1}
    claim.release()


def test_a_claim_of_another_machine_whose_heart_stopped_is_not(tmp_path):
    lock = tmp_path / ("a" * 12) / "lock"
    Claim.take(lock.parent)
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "another"}))
    past = time.time() - 3600
    os.utime(lock, (past, past))
    content = _content([row()], [_job("a" * 12)], tmp_path)
    assert _cells(content, "new")["FP"] == {"waiting": 1}


def test_seeds_are_counted_and_the_rest_is_not_planned(tmp_path):
    rows = [row(job_id="a" * 12, checkpoint="new", precision=p) for p in ("FP", "4w4a")]
    rows += [failure("diverged", job_id="b" * 12, checkpoint="new", precision="4w4a", seed=1)]
    rows += [row(job_id="c" * 12, checkpoint="other", precision="2w2a")]
    content = _content(rows, [_job("a" * 12), _job("b" * 12, ("4w4a",), 1)], tmp_path)
    expected = {"FP": {"done": 1}, "4w4a": {"done": 1, "failed": 1}, "2w2a": None}
    assert _cells(content, "new") == expected
    assert content["suites"][0]["jobs"] == [1, 0, 0, 1, 0]


def test_several_metrics_and_splits_of_a_job_count_once(tmp_path):
    rows = [row(metric=m, split=s) for m in ("top1", "mean_per_class") for s in ("test", "val")]
    assert _cells(_content(rows, [], tmp_path), "ssql-r10") == {"4w4a": {"done": 1}}


def test_a_failure_says_why_and_how_its_log_ends(tmp_path, result):
    result(tmp_path / ("a" * 12), log_tail=[f"line {n}" for n in range(30)])
    rows = [failure("broken", job_id=j, seed=s) for s, j in enumerate(("a" * 12, "b" * 12))]
    rows += [failure("no data", status="skipped", job_id="c" * 12)]
    failed, skipped = _content(rows, [], tmp_path)["missing"]
    assert (failed["status"], failed["reason"]) == ("failed", "broken")
    assert [job["id"] for job in failed["jobs"]] == ["a" * 12, "b" * 12]
    assert failed["jobs"][1]["title"] == "ssql-r10 · digits · linear · 4w4a · seed 1"
    assert failed["log"] == [f"line {n}" for n in range(10, 30)]
    assert (skipped["status"], skipped["log"]) == ("skipped", [])


def test_a_failure_that_the_frame_leaves_out_has_its_reason_too(tmp_path, result):
    result(tmp_path / ("a" * 12))  # another job has answered its question
    content = _content([row()], [_job("a" * 12, ("FP",))], tmp_path)
    assert _cells(content, "new")["FP"] == {"failed": 1}
    assert [found["reason"] for found in content["missing"]] == ["broken"]


def test_a_suite_planned_twice_counts_its_jobs_once(tmp_path):
    suites = [PlannedSuite(name, (_job("a" * 12),)) for name in ("demo", "paper")]
    content = coverage.content(make_source([row()], planned=suites, runs_dir=tmp_path))
    assert _cells(content, "new")["FP"] == {"waiting": 1} and len(content["suites"]) == 2


def test_a_finished_folder_gives_the_same_json(tmp_path):
    texts = {json.dumps(_content(make_frame(), [], tmp_path), allow_nan=False) for _ in range(2)}
    assert len(texts) == 1


def test_nothing_planned_or_run_is_no_section(tmp_path):
    assert coverage.content(make_source(make_frame().iloc[:0], runs_dir=tmp_path)) == {}
