"""Result files of every version that was ever written are read, from files of that version."""

import json

import pytest

from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import (
    MIGRATIONS,
    SCHEMA_VERSION,
    CheckpointFacts,
    Cost,
    InputRecord,
    Measurement,
    Result,
    migrate,
    read_result,
)
from tests.benchmark.result_folders import FIXTURES

WRITTEN = sorted(FIXTURES.glob("version-*.json"))
# What each of these files says, read off it by hand: job, checkpoint, rows, the last number.
SAYS = {
    "version-1": ("df39151a8a48", "SimSiam", 14, 25.8),
    "version-1-stderr": ("ffd2ecfa1657", "SSQL", 3, 79.8602317729164),
    "version-2": ("21ad1bc236ba", "SimSiam", 10, 97.22222222222223),
}


def _place(tmp_path, path):
    mapping = json.loads(path.read_text())
    folder = tmp_path / mapping["job_id"]
    folder.mkdir()
    (folder / "result.json").write_bytes(path.read_bytes())
    return folder, mapping


def test_there_is_a_file_of_every_version():
    versions = {json.loads(path.read_text())["schema_version"] for path in WRITTEN}
    assert versions == set(range(1, SCHEMA_VERSION + 1)), (
        "a version was added: keep a file of it in tests/benchmark/result_files/ for good"
    )
    assert set(MIGRATIONS) == versions - {SCHEMA_VERSION}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_it_is_read_as_what_it_says(tmp_path, path):
    folder, mapping = _place(tmp_path, path)
    result = read_result(folder)
    job_id, checkpoint, rows, last = SAYS[path.stem]
    assert (result.job_id, result.checkpoint.name, result.schema_version) == (
        job_id,
        checkpoint,
        SCHEMA_VERSION,
    )
    frame = load_frame(tmp_path)
    assert (len(frame), frame["value"].iloc[-1]) == (rows, last)
    said = json.loads(result.model_dump_json())
    for name, value in mapping.items():
        if name not in ("schema_version", "measurements"):
            assert said[name] == value
    for now, then in zip(said["measurements"], mapping["measurements"], strict=True):
        assert {name: now[name] for name in then} == then
        assert {value for name, value in now.items() if name not in then} <= {None}


def test_the_file_of_the_present_version_has_every_field():
    """A field that is new in the models makes a new version, with a migration and a file of its own."""
    mapping = json.loads((FIXTURES / f"version-{SCHEMA_VERSION}.json").read_text())

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


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "2", None])
def test_another_version_is_not_guessed_at(version):
    with pytest.raises(ValueError, match=r"its schema_version is .*reads 1 to"):
        migrate({"schema_version": version})
