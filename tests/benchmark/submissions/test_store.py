"""Results of others: read by their verdict, marked, and never mixed with what was measured here."""

import pytest

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.boards import make_boards
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import to_csv, to_latex, to_markdown
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import load_frame
from tests.benchmark.result_folders import submit, write

A, B, C = "a" * 12, "b" * 12, "c" * 12


def _sent(runs, sources, *, name="jane", reason="checked", **changes):
    folder = submit(runs, name, sources, reason=reason)
    for job_id in sources:
        write(folder, job_id, **changes)
    return folder


def _fold(runs):
    frame = normalize(load_frame(runs))
    folded = fold_seeds(frame)
    return frame, folded, make_boards(folded)


@pytest.mark.parametrize("source", ["verified", "self-reported"])
def test_a_sent_number_has_its_source_and_says_how_it_was_checked(tmp_path, source):
    _sent(tmp_path, {B: source}, reason="540 predictions scored again", values={"4w4a": 80.0})
    (found,) = load_frame(tmp_path).to_dict("records")
    assert (found["source"], found["value"], found["status"]) == (source, 80.0, "completed")
    assert found["reason"] == "jane: 540 predictions scored again"


def test_a_job_without_a_verdict_is_not_read(tmp_path):
    write(_sent(tmp_path, {B: "verified"}), C)
    write(tmp_path / "submissions" / "nobody", A)
    assert load_frame(tmp_path)["job_id"].tolist() == [B]


def test_a_verdict_reaches_no_other_folder(tmp_path):
    write(tmp_path / "elsewhere", C)
    submit(tmp_path, "jane", {f"../../elsewhere/{C}": "verified", f"../jane/{C}": "verified"})
    assert load_frame(tmp_path).empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"schema_version": 2, "bundle_sha256": "' + "b" * 64 + '", "jobs": {}}',
        '{"schema_version": 1, "bundle_sha256": "' + "b" * 64 + '", "jobs": '
        '{"bbbbbbbbbbbb": {"source": "measured", "reason": "trust me"}}}',
    ],
    ids=["empty", "no fields", "later version", "claims to be measured"],
)
def test_a_verdict_that_cannot_be_read_leaves_its_submission_out(tmp_path, caplog, text):
    write(tmp_path, A)
    folder = _sent(tmp_path, {B: "verified"})
    (folder / "verdict.json").write_text(text)
    assert load_frame(tmp_path)["job_id"].tolist() == [A]
    assert "verdict.json cannot be read" in caplog.text
    assert "Add its bundle again" in caplog.text


def test_what_was_measured_here_wins(tmp_path):
    write(tmp_path, A, values={"4w4a": 90.0})
    _sent(tmp_path, {A: "verified"}, values={"4w4a": 99.0})
    (found,) = load_frame(tmp_path).to_dict("records")
    assert (found["value"], found["source"]) == (90.0, "measured")


def test_a_verified_result_wins_over_a_self_reported_one_of_the_same_job(tmp_path):
    _sent(tmp_path, {A: "self-reported"}, name="anna", values={"4w4a": 99.0})
    _sent(tmp_path, {A: "verified"}, name="zoe", values={"4w4a": 90.0})
    (found,) = load_frame(tmp_path).to_dict("records")
    assert (found["value"], found["source"]) == (90.0, "verified")


def test_a_failure_here_stays_and_one_elsewhere_is_not_shown(tmp_path):
    write(tmp_path, A, status="failed", reason="disk full")
    _sent(tmp_path, {A: "verified"}, values={"4w4a": 90.0})
    _sent(tmp_path, {B: "verified"}, name="joe", status="failed", reason="of no interest")
    frame = load_frame(tmp_path)
    assert list(zip(frame["source"], frame["status"], strict=True)) == [
        ("measured", "failed"),
        ("verified", "completed"),
    ]


def test_a_name_that_is_taken_here_is_told_apart_there(tmp_path):
    write(tmp_path, A, name="net", origin="1" * 64)
    _sent(tmp_path, {B: "verified"}, name="jane", origin="2" * 64)
    folder = tmp_path / "submissions" / "jane"
    write(folder, B, name="net", origin="2" * 64)
    frame = load_frame(tmp_path).set_index("job_id")
    assert frame["checkpoint"].to_dict() == {A: "net", B: "net@22222222"}


def test_one_checkpoint_keeps_its_name_on_both_sides(tmp_path):
    write(tmp_path, A, name="net", seed=0)
    folder = submit(tmp_path, "jane", {B: "verified"})
    write(folder, B, name="net", seed=1)
    assert set(load_frame(tmp_path)["checkpoint"]) == {"net"}


def test_sent_seeds_are_never_averaged_with_measured_ones(tmp_path):
    write(tmp_path, A, seed=0, values={"4w4a": 90.0})
    write(submit(tmp_path, "jane", {B: "verified"}), B, seed=1, values={"4w4a": 80.0})
    _, folded, (board,) = _fold(tmp_path)
    assert dict(zip(folded["source"], folded["value"], strict=True)) == {
        "measured": 90.0,
        "verified": 80.0,
    }
    assert set(folded["n_seeds"]) == {1}
    assert [line.subject["source"] for line in board.lines] == ["measured", "verified"]


def test_only_self_reported_numbers_have_no_rank_and_come_last(tmp_path):
    for seed, job_id in enumerate("abc"):
        write(tmp_path, job_id * 12, name="ours", seed=seed, values={"4w4a": 80.0 + 0.1 * seed})
    good, said = {c * 12: "verified" for c in "def"}, {c * 12: "self-reported" for c in "123"}
    for name, jobs, value in (("good", good, 90.0), ("said", said, 99.0)):
        folder = submit(tmp_path, name, jobs)
        for seed, job_id in enumerate(jobs):
            values = {"4w4a": value + 0.1 * seed}
            write(folder, job_id, name=name, seed=seed, values=values)
    frame, folded, (board,) = _fold(tmp_path)
    ranks = dict(zip(folded["checkpoint"], folded["rank"], strict=True))
    assert ranks == {"good": 1, "ours": 2, "said": 0}
    assert [line.name for line in board.lines] == [
        "good (verified)",
        "ours",
        "said (self-reported)",
    ]
    cells = {line.name: line.cells["4w4a", "top1"] for line in board.lines}
    assert cells["good (verified)"].best and not cells["said (self-reported)"].best
    assert cells["said (self-reported)"].reason == "said: checked"
    tables = Tables(frame)
    texts = to_markdown(tables), to_latex(tables)
    for text in texts:
        assert "said (self-reported)" in text and "the sender's word" in text
    rows = [line.split(",") for line in to_csv(tables).splitlines()]
    column = rows[0].index("source")
    assert [row[column] for row in rows[1:]] == ["verified", "measured", "self-reported"]


def test_what_is_only_said_does_not_change_the_order_of_the_others(tmp_path):
    write(tmp_path, A, name="fast", values={"FP": 80.0, "4w4a": 79.0})
    write(tmp_path, B, name="slow", values={"FP": 90.0, "4w4a": 60.0})
    before = [line.name for line in _fold(tmp_path)[2][0].lines]
    write(submit(tmp_path, "x", {C: "self-reported"}), C, name="z", values={"FP": 1.0})
    after = [line.name for line in _fold(tmp_path)[2][0].lines]
    assert after == [*before, "z (self-reported)"]


def test_numbers_only_said_make_a_board_without_ranks(tmp_path):
    _sent(tmp_path, {A: "self-reported"})
    _, folded, (board,) = _fold(tmp_path)
    assert (folded["group"].tolist(), folded["rank"].tolist()) == (["A"], [0])
    assert len(board.lines) == 1
