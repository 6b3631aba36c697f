"""A result file as a job of this layout wrote it is read as what it says."""

import json

import pytest

from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import (
    SCHEMA_VERSION,
    CheckpointFacts,
    Cost,
    InputRecord,
    Measurement,
    Result,
    make_room,
    obstacle,
    read_result,
)
from tests.benchmark.result_folders import FIXTURES

WRITTEN = FIXTURES / f"version-{SCHEMA_VERSION}.json"
# What the file says, read off it by hand: job, checkpoint, rows, the last number.
SAYS = ("21ad1bc236ba", "SimSiam", 10, 97.22222222222223)


def _place(tmp_path, path):
    mapping = json.loads(path.read_text())
    folder = tmp_path / mapping["job_id"]
    folder.mkdir()
    (folder / "result.json").write_bytes(path.read_bytes())
    return folder, mapping


@pytest.mark.parametrize("version", [2, SCHEMA_VERSION])
def test_it_is_read_as_what_it_says(tmp_path, version):
    folder, mapping = _place(tmp_path, FIXTURES / f"version-{version}.json")
    result = read_result(folder)
    job_id, checkpoint, rows, last = SAYS
    assert (result.job_id, result.checkpoint.name, result.schema_version) == (
        job_id,
        checkpoint,
        version,
    )
    frame = load_frame(tmp_path)
    assert (len(frame), frame["value"].iloc[-1]) == (rows, last)
    said = json.loads(result.model_dump_json())
    absent = {"pretraining": None, "pretrain_seed": None}  # version 2 did not say
    unsaid = {"interval": None, "warning": None}  # nor how it found its intervals
    numbers = [unsaid | measurement for measurement in mapping["measurements"]]
    checkpoint_said = absent | mapping["checkpoint"]
    assert said == mapping | {"checkpoint": checkpoint_said, "measurements": numbers}
    assert set(frame["pretraining"]) == {checkpoint}
    assert frame["pretrain_seed"].isna().all() == (version == 2)
    # Its identity does not say whether the policy is part of the board; the recipe does.
    assert frame["policy_on_board"].all()


def test_the_file_has_every_field():
    """A field that is new in the models makes a new version, with a file of its own."""
    mapping = json.loads(WRITTEN.read_text())

    assert set(mapping) == set(Result.model_fields)
    assert set(mapping["checkpoint"]) == set(CheckpointFacts.model_fields)
    for model, parts in (
        (Measurement, mapping["measurements"]),
        (Cost, mapping["costs"].values()),
        (InputRecord, mapping["inputs"].values()),
    ):
        assert parts
        for part in parts:
            assert set(part) == set(model.model_fields)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_version_is_not_guessed_at(tmp_path, caplog, version):
    folder, mapping = _place(tmp_path, WRITTEN)
    (folder / "result.json").write_text(json.dumps(mapping | {"schema_version": version}))
    assert read_result(folder) is None
    assert f"schema_version: Input should be 2 or {SCHEMA_VERSION}" in caplog.text
    assert obstacle(folder) is None  # its job runs again


def test_a_newer_release_s_file_is_named_and_stays(tmp_path, caplog):
    folder, _ = _place(tmp_path, WRITTEN)
    (folder / "result.json").write_text(
        json.dumps({"schema_version": SCHEMA_VERSION + 1, "new": 1})
    )
    before = (folder / "result.json").read_bytes()
    assert read_result(folder) is None
    said = f"was written by a newer release (schema_version {SCHEMA_VERSION + 1})"
    assert said in caplog.text and "its job does not run. Update this one" in caplog.text
    assert f"{said}; the job was not run, and the file stays." in obstacle(folder)
    make_room(folder)
    assert (folder / "result.json").read_bytes() == before
