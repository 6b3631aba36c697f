"""Building the board from result files, and the command line around it."""

import json

import pytest

from lowbit.benchmark.cli.leaderboard import main
from lowbit.benchmark.leaderboard import build
from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.planning.plan_file import remember
from lowbit.benchmark.results.result_file import Result, write_result
from tests.benchmark.board_frames import POLICY, SPLITS, make_frame
from tests.benchmark.board_pages import Page

FILES = [
    "index.html",
    "methods.csv",
    "reproduction.csv",
    "results.csv",
    "results.md",
    "results.tex",
]
TABLE_11 = [{"paper": "SSQL", "table": "Table 11"}]


def _write(runs, job_id, name, values, *, seed=0, status="completed", reason=None):
    """Write a result file as a finished linear probe leaves it."""
    measurements = [
        {"metric": "top1", "value": v, "unit": "%", "n": 540, "precision": p, "split": "test"}
        for p, v in values.items()
    ]
    result = Result.model_validate(
        {
            "schema_version": 2,
            "job_id": job_id,
            "question": f"question {job_id}",
            "stage": "transfer",
            "protocol_version": 1,
            "status": status,
            "reason": reason,
            "measurements": measurements if status == "completed" else [],
            "precisions": list(values),
            "recipe": {"seed": seed},
            "inputs": {"checkpoint": {"path": f"{name}.pth", "sha256": name * 8, "job_id": None}},
            "identity": {
                "task": "classification",
                "dataset": "digits",
                "protocol": "linear",
                "image_size": 32,
                "engine": "torch",
                "policy": "ssql",
                "policy_fingerprint": POLICY["ssql"],
                "split_sha256": SPLITS["digits"],
            },
            "checkpoint": {"name": name, "method": "SSQL", "architecture": "resnet10_slim"},
        }
    )
    (runs / job_id).mkdir(parents=True)
    write_result(runs / job_id, result)


def _write_three(folder):
    _write(folder, "a" * 12, "good", {"FP": 95.0, "4w4a": 93.0})
    _write(folder, "b" * 12, "bad", {"FP": 90.0, "4w4a": 60.0})
    _write(folder, "c" * 12, "lost", {"FP": 0, "4w4a": 0}, status="failed", reason="disk full")
    return folder


@pytest.fixture
def runs(tmp_path):
    return _write_three(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of runs whose board was built, and the page; for tests that only read."""
    runs = _write_three(tmp_path_factory.mktemp("built"))
    return runs, build.build(runs)


def test_build_writes_four_files_and_returns_the_page(built):
    runs, page = built
    assert page == runs / "leaderboard" / "index.html"
    assert sorted(path.name for path in page.parent.iterdir()) == FILES
    csv = (page.parent / "results.csv").read_text(encoding="utf-8")
    assert csv.count("\n") == 1 + 4 + 2
    assert ",93.0000," in csv
    assert "disk full" in csv


def test_result_files_make_one_board_with_ranks(runs):
    text = build.export(runs, "md")
    assert "| good | SSQL | resnet10\\_slim | *95.0†* <sup>1</sup> | *93.0†* <sup>1</sup> |" in text
    assert "| bad | SSQL | resnet10\\_slim | 90.0† <sup>2</sup> | 60.0† <sup>2</sup> |" in text
    assert "| lost | - | - | failed | failed |" in text or "| lost | SSQL |" in text


def test_rebuilding_gives_the_same_bytes(runs):
    folder = build.build(runs, reported=TABLE_11).parent
    before = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES:
        (folder / name).unlink()
    build.build(runs, reported=TABLE_11)
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_the_board_does_not_know_where_or_when_it_was_built(runs, tmp_path_factory, monkeypatch):
    here = build.build(runs).read_bytes()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deeper"
    runs.rename(elsewhere)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert build.build(elsewhere).read_bytes() == here


def test_the_order_of_results_does_not_matter(tmp_path, monkeypatch):
    pages = []
    for number, frame in enumerate([make_frame(), make_frame().sample(frac=1, random_state=1)]):
        monkeypatch.setattr(build, "load_frame", lambda _, frame=frame: frame)
        folder = tmp_path / str(number)
        folder.mkdir()
        pages.append(build.build(folder).read_bytes())
    assert pages[0] == pages[1]


def test_nothing_temporary_is_left(built):
    folder = built[1].parent
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_an_empty_folder_gives_a_board_that_says_so(tmp_path):
    page = build.build(tmp_path)
    assert "There is no result to show" in page.read_text(encoding="utf-8")
    assert "no job has finished" in (page.parent / "results.md").read_text(encoding="utf-8")
    assert "no job has finished" in (page.parent / "results.tex").read_text(encoding="utf-8")


def test_only_failures_give_a_board_with_reasons(tmp_path):
    _write(tmp_path, "c" * 12, "lost", {"FP": 0}, status="failed", reason="disk full")
    page = Page(build.build(tmp_path))
    assert "There is no result to show" in page.text
    assert "disk full" in json.dumps(page.sections["coverage"])


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*no board was made"):
        build.build(tmp_path / "nothing")


def test_command_build_prints_the_page(runs, capsys):
    assert main(["build", str(runs), "--reported", "paper=SSQL,table=Table 11"]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "leaderboard" / "index.html")
    assert "Table 11" in (runs / "leaderboard" / "results.csv").read_text(encoding="utf-8")


def test_a_rebuild_shows_the_published_numbers_of_the_suites_that_ran(runs):
    remember(runs, Plan("one/suite", {}, ({"paper": "SSQL", "table": "Table 12"},)))
    remember(runs, Plan("another", {}))
    csv = build.build(runs).parent / "results.csv"
    before = csv.read_bytes()
    assert b"Table 12" in before
    csv.unlink()
    assert main(["build", str(runs)]) == 0
    assert csv.read_bytes() == before


@pytest.mark.parametrize("kind", build.FORMATS)
def test_command_export_prints_what_build_writes(built, capsys, kind):
    runs, _ = built
    assert main(["export", str(runs), "--format", kind]) == 0
    expected = (runs / "leaderboard" / f"results.{kind}").read_text(encoding="utf-8")
    assert capsys.readouterr().out == expected


def test_command_compare_prints_differences_with_intervals(runs, capsys):
    _write(runs, "d" * 12, "good", {"FP": 95.4, "4w4a": 93.5}, seed=1)
    _write(runs, "e" * 12, "bad", {"FP": 90.6, "4w4a": 61.0}, seed=1)
    picture = runs / "compare.svg"
    command = ["compare", "good", "bad", "--runs-dir", str(runs)]
    assert main([*command, "--json", "--plot", str(picture)]) == 0
    assert picture.read_text().startswith("<?xml")
    lines = json.loads(capsys.readouterr().out)["lines"]
    found = [line["overall"] for line in lines]
    assert [(d["precision"], d["over"], d["n"]) for d in found] == [
        ("FP", "seeds", 2),
        ("4w4a", "seeds", 2),
    ]
    assert found[0]["mean"] == pytest.approx(4.9)
    assert main(command) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "A = good, B = bad"
    # +4.9, sd .1414, t(.975, 1) = 12.706: half-width 1.27; t = 49, p = .013, and 4w4a has less
    assert "  good beats bad at FP on digits, +4.9 [+3.6, +6.2]" in text
    row = next(line for line in text if line.startswith("digits") and " FP " in line)
    assert row.split()[-8:] == ["90.3", "+4.9", "[+3.6,", "+6.2]", "2", "seeds", "0.013", "0.013"]


def test_command_compare_on_one_seed_without_errors_tests_nothing(runs, capsys):
    assert main(["compare", "good", "bad", "--runs-dir", str(runs), "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["lines"][0]
    assert line["overall"]["low"] is line["overall"]["p"] is None and line["untested"] == 1
    assert main(["compare", "good", "bad", "--runs-dir", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "[unknown]  1 seed" in text and "beats" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{runs}/nothing"], "there is no folder"),
        (["build", "{runs}", "--reported", "SSQL"], "is not a selection; nothing was written"),
        (["build", "{runs}", "--reported", "paper=QSSL"], "no published score has paper 'QSSL'"),
        (["compare", "good", "god", "--runs-dir", "{runs}"], "no checkpoint 'god'"),
    ],
)
def test_command_errors_are_one_line_and_exit_code_1(runs, capsys, arguments, message):
    assert main([argument.format(runs=runs) for argument in arguments]) == 1
    found = capsys.readouterr()
    assert found.err.startswith("error: ")
    assert message in found.err
    assert found.err.count("\n") == 1
