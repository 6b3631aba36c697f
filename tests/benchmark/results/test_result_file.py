"""Result files: whole or absent; and the frame over all of them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lowbit.benchmark.results.build_result import completed, failed, skipped
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import MEASURED_COLUMNS, load_frame
from lowbit.benchmark.results.result_file import (
    ASIDE,
    RESULT,
    SCHEMA_VERSION,
    Result,
    find_results,
    make_room,
    read_result,
    write_result,
)
from lowbit.common.atomic_file import write_text

ROOT = Path(__file__).resolve().parents[3]
RETURNED = {
    "measurements": [
        {
            "metric": "top1",
            "value": 93.5,
            "unit": "%",
            "n": 540,
            "stderr": 1.0625,
            "low": 92.5,
            "high": 94.5,
            "interval": "wilson",
            "warning": None,
            "precision": precision,
            "split": "test",
        }
        for precision in ("FP", "4w4a")
    ],
    "costs": {"4w4a": {"weight_bytes": 1_000_000, "bit_operations": 4_000_000_000}},
    "artifacts": {},
    "checkpoint": {"method": "SSQL", "architecture": "resnet18", "sha256": "a" * 64},
    "details": {"lr": 30.0},
}
USAGE = {"device": "cpu", "seconds": 1.5, "peak_memory_mb": 10.0, "peak_gpu_memory_mb": None}


@pytest.fixture
def jobs(bench):
    planned = bench.plan(precisions=["FP", "4w4a"], seeds=[0, 1])
    return list(planned.jobs.values())


@pytest.fixture
def store(bench):
    """Write the result of a job as a run would; return its folder."""

    def _store(job, how="completed", **changes):
        folder = bench.runs / job.id
        folder.mkdir(parents=True, exist_ok=True)
        if how == "completed":
            result = completed(job, RETURNED, inputs={}, folder=folder, usage=USAGE)
        elif how == "failed":
            result = failed(job, "ValueError: broken", inputs={}, folder=folder)
        else:
            result = skipped(job, "Not run.")
        write_result(folder, result.model_copy(update=changes))
        return folder

    return _store


def test_a_result_comes_back_as_written(jobs, store):
    result = read_result(store(jobs[1]))
    assert result.job_id == jobs[1].id
    assert [m.model_dump() for m in result.measurements] == RETURNED["measurements"]
    assert result.versions["python"] == sys.version.split()[0]
    assert result.versions["torch"] is not None
    assert set(result.versions) == {
        "python",
        "torch",
        "torchvision",
        "timm",
        "detectron2",
        "lowbit-bench",
    }


def test_every_field_has_one_sentence():
    fields = [*Result.model_fields.items()]
    for name, field in fields:
        assert field.description and field.description.endswith("."), name


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"schema_version": 1, "job_id": "ab',
        "[]",
        "{}",
        '{"schema_version": 1}',
        '"text"',
        "\x00" * 100,
    ],
)
def test_a_damaged_file_is_reported_and_counts_as_absent(jobs, store, bench, caplog, text):
    folder = store(jobs[1])
    (folder / RESULT).write_text(text)
    assert read_result(folder) is None
    assert str(folder / RESULT) in caplog.text
    assert "is ignored" in caplog.text
    assert list(find_results(bench.runs)) == []


def test_damaged_files_are_set_aside_with_all_their_bytes(jobs, store):
    folder = store(jobs[1])
    texts = ["", '{"schema_version": 2, "job_id": "ab', "[]"]
    for text in texts:
        (folder / RESULT).write_text(text)
        make_room(folder)
        assert not (folder / RESULT).exists()
    names = [ASIDE, f"{ASIDE}.2", f"{ASIDE}.3"]
    assert [(folder / name).read_text() for name in names] == texts
    store(jobs[1])
    make_room(folder)
    assert read_result(folder) is not None


def test_a_truncated_file_is_never_a_result(jobs, store):
    folder = store(jobs[1])
    text = (folder / RESULT).read_text()
    for end in range(0, len(text.rstrip()) - 1, 97):
        (folder / RESULT).write_text(text[:end])
        assert read_result(folder) is None


def test_a_file_without_standard_errors_is_read(jobs, store, bench):
    folder = store(jobs[1])
    mapping = json.loads((folder / RESULT).read_text())
    for measurement in mapping["measurements"]:
        del measurement["stderr"]
    (folder / RESULT).write_text(json.dumps(mapping))
    assert [m.stderr for m in read_result(folder).measurements] == [None, None]
    frame = load_frame(bench.runs)
    assert frame["stderr"].isna().all() and frame["stderr"].dtype == float


def test_files_of_another_version_or_job_are_not_read(jobs, store, bench, caplog):
    folder = store(jobs[1])
    mapping = json.loads((folder / RESULT).read_text())
    earlier = {**mapping, "schema_version": 1}
    (folder / RESULT).write_text(json.dumps(earlier))
    assert read_result(folder) is None
    assert f"schema_version: Input should be 2 or {SCHEMA_VERSION}" in caplog.text
    (folder / RESULT).write_text(json.dumps({**mapping, "job_id": "0" * 12}))
    assert read_result(folder) is None
    assert "the result of job 000000000000" in caplog.text


def test_a_value_that_is_not_finite_is_no_measurement(jobs, tmp_path):
    returned = {**RETURNED, "measurements": [{**RETURNED["measurements"][0], "value": math.nan}]}
    with pytest.raises(FloatingPointError, match="top1 at FP is nan; nothing was recorded"):
        completed(jobs[1], returned, inputs={}, folder=tmp_path, usage=USAGE)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_reader_never_sees_half_a_file_of_a_writer_that_is_killed(tmp_path):
    path = tmp_path / "a.json"
    code = (
        "import sys; from pathlib import Path; from lowbit.common.atomic_file import write_text\n"
        "while True:\n"
        "    for letter in 'ab':\n"
        "        write_text(Path(sys.argv[1]), letter * 300_000)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
        seen, end = set(), time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < end:
            if path.exists():
                text = path.read_text()
                assert len(text) == 300_000
                assert len(set(text)) == 1
                seen.add(text[0])
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert len(set(path.read_text())) == 1


def test_the_frame_has_a_row_a_measurement(jobs, store, bench):
    store(jobs[1])
    frame = load_frame(bench.runs)
    assert tuple(frame.columns) == MEASURED_COLUMNS
    row = frame.iloc[1]
    expected = {
        "job_id": jobs[1].id,
        "status": "completed",
        "reason": "",
        "checkpoint": "made",
        "method": "SSQL",
        "architecture": "resnet18",
        "task": "classification",
        "dataset": "fakes",
        "protocol": "fake",
        "precision": "4w4a",
        "metric": "top1",
        "value": 93.5,
        "unit": "%",
        "n": 540,
        "stderr": 1.0625,
        "split": "test",
        "seed": 0,
        "engine": "torch",
        "training": "-",
        "policy": "ssql",
        "policy_fingerprint": "f" * 12,
        "split_sha256": "0" * 64,
        "protocol_version": 1,
        "image_size": 32,
        "source": "measured",
        "image_low": 92.5,
        "image_high": 94.5,
        "image_interval": "wilson",
        "weight_bytes": 1e6,
        "bit_operations": 4e9,
        "zero_shot": False,
        "policy_on_board": True,
        "pretraining": "made",
        "pretrain_seed": 0,
        "adaptive_method": "-",
        "adaptive_variant": "-",
        "adaptive_reference": "-",
        "processor": "-",
        "instruction_set": "-",
        "cores": "-",
        "products": "-",
        "seconds": 1.5,
        "device": "cpu",
    }
    found = row.to_dict()
    assert math.isnan(found.pop("rounding"))  # not measured
    assert pd.isna(found.pop("image_warning"))
    assert found == expected
    assert len(frame) == 2


def test_details_say_which_precisions_are_zero_shot(jobs, store, bench):
    store(jobs[1], details={"zero_shot": ["4w4a"]})
    store(jobs[0], "failed")
    frame = normalize(load_frame(bench.runs))
    completed = frame[frame.status == "completed"]
    assert completed.set_index("precision").zero_shot.to_dict() == {"FP": False, "4w4a": True}
    assert not frame[frame.status == "failed"].zero_shot.any()


@pytest.mark.parametrize("how", ["failed", "skipped"])
def test_a_job_without_numbers_has_a_row_for_each_precision_planned(jobs, store, bench, how):
    store(jobs[1], how)
    frame = load_frame(bench.runs)
    assert frame["precision"].tolist() == ["FP", "4w4a"]
    assert frame["value"].isna().all()
    assert set(frame["status"]) == {how}
    assert set(frame["metric"]) == {"top1"}
    assert set(frame["checkpoint"]) == {"made"}
    assert frame["reason"].str.len().min() > 0


def test_an_empty_folder_gives_an_empty_frame(tmp_path):
    frame = load_frame(tmp_path / "nothing")
    assert tuple(frame.columns) == MEASURED_COLUMNS
    assert frame.empty


def test_a_failure_is_left_out_once_its_question_is_answered(bench, store):
    wrong = bench.plan(checkpoints=[{"name": "mine", "path": "typo.pth"}])
    (bench.folder / "backbone.pth").write_text("weights")
    right = bench.plan(checkpoints=[{"name": "mine", "path": "backbone.pth"}])
    store(next(iter(wrong.jobs.values())), "failed")
    assert set(load_frame(bench.runs)["status"]) == {"failed"}
    store(next(iter(right.jobs.values())))
    assert set(load_frame(bench.runs)["status"]) == {"completed"}


def test_two_files_that_had_one_name_are_never_one_checkpoint(bench, store):
    path = bench.folder / "backbone.pth"
    for text in ("first", "second"):
        path.write_text(text)
        planned = bench.plan(checkpoints=[{"name": "mine", "path": "backbone.pth"}])
        store(next(iter(planned.jobs.values())))
    names = set(load_frame(bench.runs)["checkpoint"])
    hashes = {result.inputs["checkpoint"].sha256[:8] for result in find_results(bench.runs)}
    assert names == {f"mine@{short}" for short in hashes}
    assert len(names) == 2


def test_seeds_and_stages_of_one_checkpoint_share_its_name(jobs, store, bench):
    for job in jobs:
        store(job)
    assert set(load_frame(bench.runs)["checkpoint"]) == {"made"}
