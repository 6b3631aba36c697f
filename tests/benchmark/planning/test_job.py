"""What enters a job's id, and what must not."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import pytest

from lowbit.benchmark.planning.job import File, Job, Label, Output, canonical_json
from lowbit.benchmark.recipes.yaml_files import validate


@pytest.fixture
def job(bench):
    """Plan one transfer job of a checkpoint file, with changes to recipe, input or label."""
    path = bench.folder / "backbone.pth"
    path.write_bytes(b"weights")

    def _job(*, source=None, label="mine", **recipe):
        source = source or File.at(path)
        mapping = {"checkpoint": str(getattr(source, "path", "?")), **recipe}
        inputs = {"checkpoint": source}
        return Job.plan(
            "transfer", validate("transfer", mapping), inputs=inputs, label=Label(label)
        )

    _job.path = path
    return _job


def test_the_id_is_the_hash_of_what_decides(job):
    planned = job(lr=0.5)
    decisive = {
        "stage": "transfer",
        "version": 1,
        "recipe": {
            "architecture": None,
            "behave": "well",
            "detector": None,
            "lr": 0.5,
            "precisions": ["FP"],
            "random_backbone": False,
            "seed": 0,
            "size": 0.0,
        },
        "identity": planned.identity,
        "inputs": {"checkpoint": hashlib.sha256(b"weights").hexdigest()},
    }
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    assert planned.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert re.fullmatch("[0-9a-f]{12}", planned.id)


def test_nothing_cosmetic_enters(job, bench):
    moved = bench.folder / "elsewhere" / "renamed.pth"
    moved.parent.mkdir()
    shutil.copy(job.path, moved)
    same = {
        job().id,
        job(name="another name").id,
        job(device="cuda", sleep=3.0, journal="/dev/null").id,
        job(label="another label").id,
        job(source=File.at(moved)).id,
        job(lr=1).id,  # the default, written out, and as an integer
    }
    assert len(same) == 1


def test_everything_that_decides_enters(job, monkeypatch):
    from lowbit import transfer

    ids = [
        job().id,
        job(lr=2.0).id,
        job(seed=1).id,
        job(precisions=["4w4a"]).id,
        job(source=Output("0123456789ab")).id,
        job(source=Output("ba9876543210")).id,
    ]
    facts = transfer.identity(validate("transfer", {}))
    for key in ("split_sha256", "policy_fingerprint", "engine"):
        monkeypatch.setattr(transfer, "identity", lambda _, key=key: {**facts, key: "other"})
        ids.append(job().id)
    monkeypatch.undo()
    ids.append(replace(job(), version=2).id)
    ids.append(replace(job(), stage="detection").id)
    job.path.write_bytes(b"other weights")
    ids.append(job().id)
    assert len(set(ids)) == len(ids)


def test_a_missing_file_is_planned_with_its_problem(job, tmp_path):
    planned = job(source=File.at(tmp_path / "gone.pth"))
    assert "There is no checkpoint file" in planned.problem
    assert planned.id != job(source=File.at(tmp_path / "gone too.pth")).id
    assert planned.question == job().question


def test_facts_that_cannot_be_had_are_a_problem_of_the_job(job):
    assert job(behave="no data").problem == (
        "FileNotFoundError: There is no data; nothing was run. Get it."
    )


def test_the_question_tells_checkpoint_names_and_recipes_apart(job):
    assert len({job().question, job(label="yours").question, job(lr=2.0).question}) == 3


def test_canonical_json_refuses_what_json_cannot_say():
    assert canonical_json({"b": [1, None], "a": 0.001}) == '{"a":0.001,"b":[1,null]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_the_title_names_what_a_reader_looks_for(job):
    title = job(precisions=["FP", "4w4a"], seed=3).title
    assert title == "transfer mine fakes fake FP/4w4a seed 3"
