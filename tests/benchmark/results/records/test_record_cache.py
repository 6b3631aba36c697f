"""The columns kept beside the result files: they save time and change nothing."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.benchmark.leaderboard import build
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.records import read_records, record_cache
from lowbit.benchmark.results.records.record_cache import CACHE
from lowbit.benchmark.results.result_file import RESULT
from tests.benchmark.result_folders import submit, write

A, B, C = "a" * 12, "b" * 12, "c" * 12


@pytest.fixture
def runs(tmp_path):
    write(tmp_path, A, values={"FP": 95.0, "4w4a": 93.0})
    write(tmp_path, B, status="failed", reason="disk full")
    write(submit(tmp_path, "jane", {C: "verified"}), C, seed=1)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch):
    """The folders of the result files that are parsed from now on."""
    folders, parse = [], read_records.parse

    def parsing(runs_dir, file):
        folders.append(Path(file[0]).name)
        return parse(runs_dir, file)

    monkeypatch.setattr(read_records, "parse", parsing)
    return folders


def _afresh(runs):
    """Load as if nothing had ever been kept."""
    (runs / CACHE).unlink(missing_ok=True)
    return load_frame(runs)


def _same(runs):
    kept = load_frame(runs)
    pd.testing.assert_frame_equal(kept, _afresh(runs))
    return kept


def test_a_file_is_parsed_once(runs, parsed):
    first = load_frame(runs)
    assert sorted(parsed) == [A, B, C]
    pd.testing.assert_frame_equal(load_frame(runs), first)
    assert len(parsed) == 3


def test_only_what_is_new_is_parsed(runs, parsed):
    load_frame(runs)
    del parsed[:]
    write(runs, "d" * 12)
    write(runs, B, values={"4w4a": 70.0})
    frame = load_frame(runs)
    assert sorted(parsed) == [B, "d" * 12]
    assert frame.set_index("job_id").loc[B, "value"] == 70.0


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(runs):
    path = runs / A / RESULT
    load_frame(runs)
    stat = path.stat()
    write(runs, A, values={"FP": 59.0, "4w4a": 39.0})
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert load_frame(runs)["value"].tolist()[:2] == [59.0, 39.0]


def test_a_file_edited_in_place_is_read_again(runs):
    path = runs / A / RESULT
    load_frame(runs)
    inode = path.stat().st_ino
    path.write_text(path.read_text().replace("95.0", "59.0"))
    os.utime(path, ns=(1, 1))
    assert path.stat().st_ino == inode
    assert load_frame(runs)["value"].tolist()[:2] == [59.0, 93.0]


def test_what_is_gone_is_not_shown(runs):
    load_frame(runs)
    shutil.rmtree(runs / A)
    shutil.rmtree(runs / "submissions")
    assert load_frame(runs)["job_id"].tolist() == [B]


def test_a_damaged_result_is_reported_in_every_process_and_never_kept(runs, parsed, caplog):
    (runs / A / RESULT).write_text('{"schema_version": 2')
    for _ in range(2):
        assert set(load_frame(runs)["job_id"]) == {B, C}
    assert parsed.count(A) == 2
    assert "is ignored" in caplog.text


def _other_code(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"made_by": "another"}), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PAR1" + bytes(100) + b"PAR1"),
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
        lambda path: pq.write_table(pa.table({"other": [1]}), path),
        _other_code,
    ],
    ids=["empty", "garbage", "truncated", "half", "other columns", "other code"],
)
def test_a_damaged_cache_is_made_again(runs, parsed, damage):
    whole = load_frame(runs)
    damage(runs / CACHE)
    pd.testing.assert_frame_equal(load_frame(runs), whole)
    assert len(parsed) == 6
    load_frame(runs)
    assert len(parsed) == 6


def test_a_folder_that_cannot_be_written_is_read_all_the_same(runs, monkeypatch):
    whole = _afresh(runs)
    (runs / CACHE).unlink()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(record_cache, "atomic", refuse)
    pd.testing.assert_frame_equal(load_frame(runs), whole)
    assert not (runs / CACHE).exists()


def test_everything_derived_is_rebuilt_byte_for_byte(runs):
    def contents():
        files = [runs / CACHE, *sorted((runs / "leaderboard").iterdir())]
        return {path.name: path.read_bytes() for path in files}

    build.build(runs)
    before = contents()
    assert len(before) == 7
    (runs / CACHE).unlink()
    shutil.rmtree(runs / "leaderboard")
    build.build(runs)
    assert contents() == before


def test_an_empty_folder_stays_empty(tmp_path):
    assert load_frame(tmp_path).empty
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_fit_no_column_do_not_take_the_board_down(runs):
    path = write(runs, "e" * 12) / RESULT
    mapping = json.loads(path.read_text())
    mapping["recipe"] |= {"seed": 2**80, "metrics": {"a": 1}}
    mapping["identity"] |= {"image_size": "large", "dataset": ["x"], "task": 3}
    mapping["details"] |= {"zero_shot": [["4w4a"], 7]}
    path.write_text(json.dumps(mapping))
    found = load_frame(runs).set_index("job_id").loc["e" * 12]
    assert pd.isna(found["seed"]) and pd.isna(found["image_size"])
    assert (found["dataset"], found["task"], found["zero_shot"]) == ("['x']", "3", False)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "fail", "damage", "remove", "forget", "load"]),
        st.sampled_from([A, B, C]),
        st.integers(0, 99),
    ),
    min_size=3,
    max_size=8,
)


@settings(max_examples=10, deadline=None)
@given(_STEPS)
def test_whatever_happened_the_frame_is_that_of_the_files(tmp_path_factory, steps):
    runs = tmp_path_factory.mktemp("runs")
    for what, job_id, number in steps:
        if what == "write":
            write(runs, job_id, values={"4w4a": float(number)}, seed=number)
        elif what == "fail":
            write(runs, job_id, status="failed", reason=f"reason {number}")
        elif what == "damage" and (runs / job_id).exists():
            (runs / job_id / RESULT).write_text(str(number))
        elif what == "remove":
            shutil.rmtree(runs / job_id, ignore_errors=True)
        elif what == "forget":
            (runs / CACHE).unlink(missing_ok=True)
        elif what == "load":
            load_frame(runs)
    _same(runs)
