"""metrics.jsonl ends where the state does, whatever a killed run wrote beyond it."""

import json

import pytest

from lowbit.training.metrics_log import MetricsLog, read_curve, read_lines, record_scores


def _epochs(folder):
    return [line["epoch"] for line in read_lines(folder / "metrics.jsonl")]


def test_lines_beyond_the_state_and_half_a_line_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, in_state=lambda line: False)
    assert not (tmp_path / "metrics.jsonl").exists()
    for epoch in range(4):
        log.append({"epoch": epoch, "loss": float("nan") if epoch == 1 else 0.1})
    whole = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "l')  # killed while writing
    again = MetricsLog(tmp_path, in_state=lambda line: line["epoch"] < 2)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(whole.splitlines(True)[:2])
    again.append({"epoch": 2, "loss": 0.1})
    assert _epochs(tmp_path) == [0, 1, 2]
    MetricsLog(tmp_path, in_state=lambda line: False)
    assert _epochs(tmp_path) == []


def test_scores_are_written_once_an_iteration(tmp_path):
    log = MetricsLog(tmp_path, in_state=lambda line: False)
    log.append({"iteration": 5, "loss": 1.0})
    for value in (1, 2):
        record_scores(tmp_path, 5, {"AP": value})
    record_scores(tmp_path, 10, {"AP": 3})
    assert read_curve(tmp_path) == [{"iteration": 5, "AP": 2.0}, {"iteration": 10, "AP": 3.0}]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [sorted(line) for line in lines] == [
        ["iteration", "loss"],
        *2 * [["iteration", "scores"]],
    ]


@pytest.mark.parametrize("scores", [{}, {"AP": 1.0}])
def test_scores_need_no_file_before(tmp_path, scores):
    record_scores(tmp_path, 1, scores)
    assert read_curve(tmp_path) == [{"iteration": 1, **scores}]
