"""Records do not depend on which process reads a file, nor on what else is read with it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from lowbit.benchmark.results.records import make_record, read_records
from lowbit.benchmark.results.records.read_records import look_up, parse
from lowbit.benchmark.results.result_file import RESULT, read_result
from tests.benchmark.result_folders import make_result, write

ROOT = Path(__file__).resolve().parents[4]


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "no UTF-8": lambda path: path.write_bytes(path.read_bytes().replace(b"mine", b"\xff")),
    "of a newer release": lambda path: _edit(path, schema_version=9),
    "unknown field": lambda path: _edit(path, more=1),
    "of another job": lambda path: _edit(path, job_id="f" * 12),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def runs(tmp_path):
    """A runs folder with results of several kinds, whole and damaged."""
    for number in range(40):
        write(tmp_path, f"{number:012x}", seed=number % 3, dataset=("digits", "pets")[number % 2])
    write(tmp_path, "a" * 12, status="failed", reason="disk\nfull \x1b[2J")
    write(tmp_path, "b" * 12, stage="pretrain", inputs={})
    write(tmp_path, "some name")
    for number, damage in enumerate(DAMAGE.values()):
        damage(tmp_path / f"{4 * number + 1:012x}" / RESULT)
    return tmp_path


@pytest.fixture
def two(monkeypatch):
    """Read with two processes, in steps of five files."""
    monkeypatch.setattr(read_records, "_MANY", 1)
    monkeypatch.setattr(read_records, "_STEP", 5)
    monkeypatch.setattr(read_records, "_may_start_another", lambda: True)


def _read(runs) -> pa.Table:
    found = read_records.read_records(runs, sorted(os.listdir(runs)))
    return found.sort_by("folder").combine_chunks()


def _said(caplog, runs):
    return [record.getMessage().replace(str(runs), "") for record in caplog.records]


def test_two_processes_find_and_say_what_one_does(runs, two, monkeypatch, caplog, tmp_path_factory):
    delivered = []
    found = read_records._delivered
    monkeypatch.setattr(
        read_records, "_delivered", lambda *args: delivered.append(found(*args)) or delivered[-1]
    )
    # This process waits until the second one has taken all that is left after its own first step.
    taken = read_records._taken

    def one_then_the_rest(numbers):
        yield next(taken(numbers))

    monkeypatch.setattr(read_records, "_taken", one_then_the_rest)
    both, said = _read(runs), _said(caplog, runs)
    caplog.clear()
    # What was reported once is not reported again, so the folder gets another name.
    again = runs.rename(tmp_path_factory.mktemp("again") / "runs")
    monkeypatch.setattr(read_records, "_MANY", 10**9)
    alone = _read(again)
    assert both.equals(alone)
    assert said == _said(caplog, again)
    assert len(delivered) == 1 and 0 < delivered[0].num_rows < both.num_rows
    assert both.num_rows == 43 - len(DAMAGE)
    assert len(said) == len(DAMAGE) - 1 and "named pipe" in "".join(said)


@pytest.mark.parametrize(
    "command",
    [["false"], ["true"], ["no such program"], [sys.executable, "-c", "import os; os.abort()"]],
    ids=["fails", "delivers nothing", "is missing", "is killed"],
)
def test_a_second_process_that_fails_changes_nothing(runs, two, monkeypatch, command):
    alone = _alone(runs, monkeypatch)
    popen = subprocess.Popen
    monkeypatch.setattr(
        read_records.subprocess, "Popen", lambda _, **options: popen(command, **options)
    )
    assert _read(runs).equals(alone)


def test_what_the_second_process_took_and_did_not_deliver_is_read_here(runs, two, monkeypatch):
    alone = _alone(runs, monkeypatch)
    code = "import os, sys; os.read(0, 12)"  # three steps
    popen = subprocess.Popen

    def start(_, **options):
        process = popen([sys.executable, "-c", code], **options)
        process.wait()
        return process

    monkeypatch.setattr(read_records.subprocess, "Popen", start)
    assert _read(runs).equals(alone)


def _alone(runs, monkeypatch) -> pa.Table:
    with monkeypatch.context() as patch:
        patch.setattr(read_records, "_MANY", 10**9)
        return _read(runs)


def test_a_script_without_a_main_guard_reads_once(runs, tmp_path_factory):
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(
        "print('begins')\n"
        "from pathlib import Path\n"
        "from lowbit.benchmark.results.records import read_records, record_cache\n"
        "read_records._MANY, read_records._STEP = 1, 5\n"
        "read_records._may_start_another = lambda: True\n"
        f"print(len(record_cache.load_records(Path({str(runs)!r}))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["begins", str(43 - len(DAMAGE))]


def test_an_embedded_python_starts_no_second_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert read_records._may_start_another()
    for program in ("", None, "/usr/bin/uwsgi"):
        monkeypatch.setattr(sys, "executable", program)
        assert not read_records._may_start_another()
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert not read_records._may_start_another()


def test_a_file_is_parsed_as_everywhere_else_or_left_to_that(runs):
    parsed = {f: parse(runs, look_up(runs, f)) for f in os.listdir(runs) if look_up(runs, f)}
    assert {f for f, result in parsed.items() if result is None} == {
        f"{4 * number + 1:012x}" for number, what in enumerate(DAMAGE) if what != "gone"
    }
    for folder, result in parsed.items():
        assert result == read_result(runs / folder)


def test_a_record_does_not_depend_on_those_read_before(runs, tmp_path_factory):
    """Settings that compare equal in Python and are not the same text have hashes of their own."""
    job_ids = [f"{number:012x}" for number in range(7)]
    shutil.rmtree(runs)
    values = (1, 1.0, True, "1", None, [1], {"x": 1})
    for job_id, value in zip(job_ids, values, strict=True):
        write(runs, job_id, recipe={"seed": 0, "lr": value})
    together = _read(runs)
    assert len(set(together["recipe_sha256"].to_pylist())) == len(values)
    for row, job_id in enumerate(job_ids):
        apart = tmp_path_factory.mktemp("apart")
        shutil.copytree(runs / job_id, apart / job_id)
        names = [name for name in together.column_names if name not in ("mtime_ns", "inode")]
        assert _read(apart).select(names).equals(together.slice(row, 1).select(names))


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"seed": 1}},
        {"identity": {"task": "classification", "dataset": "pets"}},
        {"inputs": {}},
        {"precisions": ["FP"]},
        {"stage": "detection"},
        {"protocol_version": 2},
        {"status": "failed"},
        {"device": "cpu"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_differ_have_keys_that_differ(changes):
    first, other = make_result("a" * 12), make_result("a" * 12, **changes)
    assert make_record.settings_key(first) != make_record.settings_key(other)
    assert make_record.settings_key(first) == make_record.settings_key(make_result("b" * 12))
