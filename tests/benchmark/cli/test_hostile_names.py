"""Names of others in what commands print: no character that a terminal obeys, and no line of theirs."""

import unicodedata

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli import analyze, check, leaderboard, status
from lowbit.benchmark.leaderboard.build import FORMATS
from lowbit.benchmark.results.build_result import failed
from lowbit.benchmark.results.result_file import write_result
from tests.benchmark.bundles import run_linear
from tests.benchmark.result_folders import make_result

LINE = "FAKE 0 failed, all verified"
HOSTILE = f"=a\x1b[2J\x9b1A\r\n{LINE}\n{LINE}\u202eb\u2028{LINE}"


@pytest.fixture
def clean(capsys, caplog):
    """Return a function that returns what was printed and logged since, after looking at it."""

    def _clean(*, shows=True):
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert ("FAKE" in text) >= shows, "the name was not shown: the test looks at nothing"
        for line in text.split("\n"):
            assert not line.strip().strip("|").strip().startswith("FAKE"), text
            bad = [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
            assert not bad, (line, bad)
        return text

    return _clean


def hostile(job_id, **changes):
    words = {"task": HOSTILE, "dataset": HOSTILE, "protocol": HOSTILE, "engine": HOSTILE}
    found = make_result(job_id, name=HOSTILE, **changes)
    facts = found.checkpoint.model_copy(update={"method": HOSTILE, "architecture": HOSTILE})
    words = {**found.identity, **words, "policy": HOSTILE, "task": "classification"}
    return found.model_copy(update={"checkpoint": facts, "identity": words})


def _write(runs, result):
    (runs / result.job_id).mkdir(parents=True, exist_ok=True)
    write_result(runs / result.job_id, result)


@pytest.fixture
def runs(tmp_path):
    for number in range(4):
        result = hostile(f"{number:012x}", seed=number % 2, values={"FP": 90.0 + number})
        if number > 1:
            facts = result.checkpoint.model_copy(update={"name": "other"})
            result = result.model_copy(update={"checkpoint": facts, "question": f"q{number}"})
        _write(tmp_path / "runs", result)
    lost = hostile("f" * 12, seed=9).model_copy(
        update={"status": "failed", "reason": HOSTILE, "measurements": ()}
    )
    _write(tmp_path / "runs", lost)
    return tmp_path / "runs"


def test_the_board_in_every_format(runs, clean):
    for format in FORMATS:
        assert leaderboard.main(["export", str(runs), "--format", format]) == 0
        clean()
    assert leaderboard.main(["build", str(runs)]) == 0
    clean(shows=False)
    for name in ("results.csv", "results.md", "results.tex"):
        print((runs / "leaderboard" / name).read_text())
        clean()
    page = (runs / "leaderboard" / "index.html").read_text()
    assert "\x1b" not in page and "\u202e" not in page


def test_compare(runs, clean):
    (name,) = {
        row["checkpoint"] for row in _board_rows(runs) if row["checkpoint"].startswith("=a\\x1b")
    }
    assert leaderboard.main(["compare", name, "other", "--runs-dir", str(runs)]) == 0
    clean()
    assert leaderboard.main(["compare", HOSTILE, "other", "--runs-dir", str(runs)]) == 1
    clean()


def _board_rows(runs):
    from lowbit.benchmark.leaderboard.build import board_frame

    return board_frame(runs).to_dict("records")


def test_run_and_status(bench, clean):
    checkpoints = [{"name": HOSTILE, "path": "a.pth"}]
    torch.save({}, bench.folder / "a.pth")
    bench.suite(name=HOSTILE, checkpoints=checkpoints)
    for options in (
        ["--dry-run"],
        ["--dry-run", "--verbose"],
        ["--budget-hours", "1", "--dry-run"],
    ):
        code = bench.main(*options)
        clean(shows=code == 0)
    assert bench.main() in (0, 1, 2)
    clean()
    if not bench.runs.exists():
        return  # such a name is refused: nothing else can show it
    assert status.main([str(bench.runs)]) == 0
    clean()
    planned = bench.plan(name=HOSTILE, checkpoints=checkpoints)
    for job in planned.jobs.values():
        _write(bench.runs, failed(job, HOSTILE, inputs={}, folder=bench.runs / job.id))
    assert status.main([str(bench.runs)]) == 0
    clean()


def test_rescore(tmp_path, clean):
    job = run_linear(tmp_path / "runs", epochs=1)
    path = tmp_path / "runs" / job.id / "result.json"
    from lowbit.benchmark.results.result_file import read_result

    result = read_result(path.parent)
    facts = result.checkpoint.model_copy(update={"name": HOSTILE})
    numbers = [m.model_copy(update={"metric": HOSTILE}) for m in result.measurements]
    write_result(
        path.parent,
        result.model_copy(update={"checkpoint": facts, "measurements": tuple(numbers)}),
    )
    assert leaderboard.main(["rescore", str(tmp_path / "runs")]) == 1
    clean()


def test_bundle_and_add(tmp_path, linear_bundle, clean):
    bad = tmp_path / "bad\x1b[2J\nFAKE.zip"
    bad.write_bytes(linear_bundle.read_bytes()[:5000])
    (tmp_path / "board").mkdir()
    assert leaderboard.main(["add", str(bad), "--runs-dir", str(tmp_path / "board")]) == 1
    clean()


def test_check_of_a_file(tmp_path, clean):
    state = {**create_backbone("resnet10_slim").state_dict(), HOSTILE: torch.zeros(3, 3)}
    torch.save({"state_dict": state, "method": HOSTILE}, tmp_path / "a.pth")
    check.main([str(tmp_path / "a.pth")])
    clean(shows=False)
    torch.save({"state_dict": {HOSTILE: torch.zeros(3, 3)}}, tmp_path / "b.pth")
    assert check.main([str(tmp_path / "b.pth")]) == 1
    clean(shows=False)
    assert check.main([str(tmp_path / "b.pth"), "--architecture", HOSTILE]) == 1
    clean()


def test_analyze(tmp_path, clean):
    save_backbone(tmp_path / "a.pth", create_backbone("resnet10_slim"), {"method": HOSTILE})
    options = ["weights", str(tmp_path / "a.pth"), "--output-dir", str(tmp_path / "out")]
    assert analyze.main(options) == 0
    clean()
    for path in (tmp_path / "out").glob("*.csv"):
        print(path.read_text())
        clean()
