"""The front door, as a user runs it: real stages, killed and started again, wrong on purpose."""

import contextlib
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from lowbit.benchmark.cli import run, status
from lowbit.benchmark.executors import job_process
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import RESULT, read_result
from tests.benchmark.board_pages import Page

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "tools" / "run_all.py"
PRECISIONS = ("FP", "4w4a")
KERNEL = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
PATIENCE = 240  # s a step may take on a busy machine

PRETRAIN = """
name: tiny
architecture: resnet10_slim
dataset: digits
image_size: 16
dim: 64
hidden_dim: 32
epochs: 4
batch_size: 256
checkpoint_every: 1
"""
LINEAR = """
name: linear
dataset: digits
epochs: 3
lr: 0.5
image_size: 16
"""
SUITE = """
name: small
precisions: [FP, 4w4a]
checkpoints:
  - {name: untrained, pretrain: pretrain.yaml, overrides: {epochs: 0}}
  - {name: SimSiam, pretrain: pretrain.yaml}
  - {name: gone, path: gone.pth}
  - {name: diverges, pretrain: pretrain.yaml, overrides: {lr: 1e30}}
transfer:
  - {recipe: linear.yaml}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a suite: two checkpoints that can be scored, one that is not there, one that diverges."""
    made = tmp_path_factory.mktemp("sweep")
    for name, text in (("pretrain", PRETRAIN), ("linear", LINEAR), ("suite", SUITE)):
        (made / f"{name}.yaml").write_text(text)
    return made


def words(runs):
    return ["suite.yaml", "--runs-dir", runs, "--workers", "1"]


def start(folder, runs):
    return subprocess.Popen(
        [sys.executable, str(TOOL), *words(runs)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_here(folder, runs):
    """Run the suite to its end in this process; return its exit code and what it printed."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as output:
        return run.main(words(runs)), output.getvalue()


@pytest.fixture(scope="module")
def server():
    """What Linux says, by file, of a fork server that has imported all that the real stages need.

    It goes on running: the suite's jobs come from it.
    """
    forkserver._forkserver._stop()
    first = job_process.start_server(1, STAGES).Process(target=os.getpid)
    first.start()  # waits for the imports
    first.join()
    place = Path(f"/proc/{forkserver._forkserver._forkserver_pid}")
    return {name: (place / name).read_text() for name in ("maps", "status", "smaps_rollup")}


@pytest.fixture(scope="module")
def uninterrupted(folder, server):
    return run_here(folder, "whole")


def test_the_server_has_run_nothing_that_a_fork_would_lose(server):
    assert "libtorch" in server["maps"]  # it has imported torch
    assert "Threads:\t1\n" in server["status"]


@pytest.mark.skipif(KERNEL < (6, 1), reason="Linux 6.1 can put memory into huge pages afterwards")
def test_the_server_is_cheap_to_fork(server):
    """A fork copies an entry for each page: most of its memory is in pages of 2 MiB."""
    rows = server["smaps_rollup"].splitlines()
    kib = {row.split()[0]: int(row.split()[1]) for row in rows[1:]}
    assert kib["AnonHugePages:"] > kib["Anonymous:"] / 2


def results(runs):
    found = [read_result(path.parent) for path in runs.glob(f"*/{RESULT}")]
    return {f"{r.stage} {r.checkpoint.name}": r for r in found}


def test_jobs_that_can_finish_do_and_the_others_say_why(folder, uninterrupted):
    code, output = uninterrupted
    found = results(folder / "whole")
    assert {name: result.status for name, result in found.items()} == {
        "pretrain untrained": "completed",
        "pretrain SimSiam": "completed",
        "pretrain diverges": "failed",
        "transfer untrained": "completed",
        "transfer SimSiam": "completed",
        "transfer gone": "failed",
        "transfer diverges": "skipped",
    }, output
    assert "FloatingPointError" in found["pretrain diverges"].reason
    assert "There is no checkpoint file" in found["transfer gone"].reason
    assert "FloatingPointError" in found["transfer diverges"].reason
    assert code == 2
    listed = output[output.index("3 of 7 jobs have not completed") :]
    for name in ("pretrain diverges", "transfer gone", "transfer diverges"):
        assert found[name].job_id in listed
    assert output.rstrip().splitlines()[-1] == "Leaderboard: whole/leaderboard/index.html"


def test_the_frame_shows_every_cell_planned(folder, uninterrupted):
    frame = load_frame(folder / "whole")
    shown = frame[(frame["metric"] == "top1") & (frame["split"] == "test")]
    cells = {
        (row.checkpoint, row.precision): (row.status, row.value == row.value)
        for row in shown.itertuples()
    }
    assert cells == {
        **{(name, p): ("completed", True) for name in ("untrained", "SimSiam") for p in PRECISIONS},
        **{("gone", p): ("failed", False) for p in PRECISIONS},
        **{("diverges", p): ("skipped", False) for p in PRECISIONS},
    }


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_and_started_again_gives_the_same_board(folder, uninterrupted):
    runs = folder / "killed"
    whole = results(folder / "whole")
    pretrain = whole["pretrain SimSiam"].job_id

    def learning():  # a state to resume from is written
        log = runs / pretrain / "log.txt"
        return log.exists() and "epoch 2/4" in log.read_text()

    runner = start(folder, "killed")
    end = time.monotonic() + PATIENCE
    while not learning() and runner.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    runner.kill()  # wherever it is by now, on a busy machine
    output, _ = runner.communicate()
    assert learning(), output
    before = stamps(runs)
    assert set(before) <= {r.job_id for r in whole.values() if r.status == "completed"}
    code, output = run_here(folder, "killed")
    assert code == 2, output
    assert before.items() <= stamps(runs).items()  # what was finished was not run again
    assert (runs / pretrain / "log.txt").read_text().count("epoch 1/4") == 1  # it was resumed
    boards = [folder / name / "leaderboard" for name in ("killed", "whole")]
    for name in ("results.csv", "results.md", "results.tex"):
        again, expected = ((board / name).read_bytes() for board in boards)
        assert again == expected, name
    again, expected = (timeless(Page(board / "index.html").data) for board in boards)
    assert again == expected


def timeless(content):
    """Return a page's data without what tells when, and how long, a job ran."""
    if isinstance(content, dict):
        told = ("log", "seconds")
        return {key: timeless(value) for key, value in content.items() if key not in told}
    return [timeless(item) for item in content] if isinstance(content, list) else content


def stamps(runs):
    """Return when each completed result was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in runs.glob(f"*/{RESULT}")
        if (result := read_result(path.parent)) is not None and result.status == "completed"
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "SUITE"),
        ("gone.yaml", "There is no file gone.yaml"),
        ("suite.yaml --only pretrian", "Did you mean 'pretrain'"),
        ("suite.yaml --shard 2/2", "write I/N with I in 0..N-1"),
        ("suite.yaml --workers 0", "write 1 or more"),
        (
            "suite.yaml --runs-dir linear.yaml",
            "linear.yaml is a file; name a new or existing folder",
        ),
        ("suite.yaml --executor slurm", "invalid choice: 'slurm'"),
        ("suite.yaml --overwrite sometimes", "invalid choice: 'sometimes'"),
        ("suite.yaml --wrokers 2", "--wrokers"),
        ("suite.yaml --budget-hours 0", "write 0.5 or 12"),
        ("suite.yaml seeds", "'seeds' has no value"),
        ("suite.yaml seed 1", "Did you mean 'seeds'"),
        ("suite.yaml checkpoints.0.name SimSiam", "'SimSiam' is given twice"),
        ("suite.yaml transfer.0.overrides.epoch 1", "Did you mean 'epochs'"),
    ],
)
def test_a_wrong_command_exits_1_says_how_to_mend_it_and_runs_nothing(
    folder, tmp_path, monkeypatch, capsys, words, said
):
    for path in folder.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.chdir(tmp_path)
    try:
        code = run.main(words.split())
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 1
    assert said in captured.err
    assert "nothing was run" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_lists_the_jobs_and_writes_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run.main(["suite.yaml", "--dry-run", "--runs-dir", str(tmp_path / "new")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^pretrain +- +3 ", output, re.M)
    assert re.search(r"^transfer +- +3 +1 ", output, re.M)
    assert re.search(r"1 job blocked:\n +There is no checkpoint file", output)
    assert re.search(r"Disk: about .* needed, .* free", output)
    assert output.rstrip().endswith("small: 7 jobs: 6 new, 1 blocked")
    assert sorted(folder.iterdir()) == before
    assert not (tmp_path / "new").exists()


def test_a_dry_run_tells_what_is_finished_and_how_long_the_rest_takes(
    folder, uninterrupted, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    words = ["suite.yaml", "--runs-dir", "whole", "--dry-run", "--workers", "2"]
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*")}
    assert run.main([*words, "seeds", "[0, 1]"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^pretrain +2 +1 ", output, re.M)
    assert re.search(r"^transfer +2 +4 +2 ", output, re.M)
    assert "(failed before)" in output
    assert re.search(r"Time: about \S+ \w+ with 2 at once on cpu .*such jobs took here", output)
    assert run.main([*words, "--overwrite", "never"]) == 0
    assert "7 jobs: 7 finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*")} == before


def test_a_budget_runs_the_cheapest_information_first(folder, tmp_path, monkeypatch, capsys):
    """The untrained network costs nothing to make, so that its score comes first."""
    monkeypatch.chdir(folder)
    words = ["suite.yaml", "--dry-run", "--runs-dir", str(tmp_path / "new"), "--workers", "1"]
    assert run.main([*words, "--budget-hours", "0.0005"]) == 0  # 1.8 s
    output = capsys.readouterr().out
    assert re.search(r"new .* transfer untrained digits linear", output)
    assert not re.search(r"new .* transfer SimSiam", output)
    assert re.search(r"Budget of 1.8 s with 1 at once.* are left out", output)
    assert run.main([*words, "--budget-hours", "1"]) == 0
    assert "0 jobs of 7 are left out." in capsys.readouterr().out


def test_status_of_a_finished_sweep(folder, uninterrupted, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert status.main(["whole"]) == 0
    by_folder = capsys.readouterr().out
    assert "small: 7 jobs: 4 completed, 2 failed, 1 skipped" in by_folder
    assert re.search(r"Failed: FloatingPointError.*\n +\w{12} +pretrain diverges", by_folder)
    assert re.search(r"Last results:\n +\w{12} +transfer .*top1 FP \d", by_folder)
    assert status.main(["suite.yaml", "--runs-dir", "whole"]) == 0
    assert capsys.readouterr().out == by_folder
    assert status.main(["whole", "--json"]) == 0
    (suite,) = json.loads(capsys.readouterr().out)
    assert suite["counts"]["completed"] == 4 and len(suite["jobs"]) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("suite.yaml --runs-dir nowhere", "was not started in nowhere"),
        (".", "No sweep was started in ."),
        ("gone.yaml", "There is no file gone.yaml"),
    ],
)
def test_a_status_of_nothing_says_what_to_name(folder, monkeypatch, capsys, words, said):
    monkeypatch.chdir(folder)
    assert status.main(words.split()) == 1
    assert said in capsys.readouterr().err


def test_overrides_and_options_come_in_any_order():
    expected = ["seeds", "[0]", "checkpoint=a.pth", "name=b"]
    for words in (
        "suite.yaml seeds [0] checkpoint=a.pth name=b --workers 2 --only transfer",
        "--workers 2 suite.yaml seeds [0] --only transfer checkpoint=a.pth name=b",
        "suite.yaml --only transfer seeds [0] --workers 2 checkpoint=a.pth name=b",
    ):
        args = run.parse_arguments(words.split())
        assert (args.suite, args.overrides) == (Path("suite.yaml"), expected)
        assert (args.workers, args.only) == (2, ("transfer",))


def test_every_example_of_the_help_is_a_command_that_is_understood(capsys):
    with pytest.raises(SystemExit) as stop:
        run.parse_arguments(["--help"])
    assert stop.value.code == 0
    examples = re.findall(r"^  lowbit-bench (\w+ .*)$", capsys.readouterr().out, re.M)
    assert len(examples) == 9
    assert shlex.split(examples.pop(0)) == ["check", "backbone.pth"]
    examples.remove("status runs --watch")
    for example in examples:
        command, *words = shlex.split(example)
        args = run.parse_arguments(words)
        assert command == "run"
        assert (ROOT / args.suite).is_file()
