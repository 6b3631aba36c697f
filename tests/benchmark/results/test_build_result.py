"""What a failed job's result repeats of its log."""

from lowbit.benchmark.results.build_result import LOG, log_tail


def test_the_last_lines_of_a_long_log(tmp_path):
    lines = [f"step {i}: loss {i / 7:.6f}" for i in range(100_000)]
    (tmp_path / LOG).write_text("\n".join(lines) + "\n")
    assert log_tail(tmp_path) == tuple(lines[-20:])


def test_a_log_shorter_than_that_is_whole(tmp_path):
    (tmp_path / LOG).write_text("one\ntwo\n")
    assert log_tail(tmp_path) == ("one", "two")


def test_a_line_without_end_is_cut_and_one_that_is_no_text_is_shown(tmp_path):
    (tmp_path / LOG).write_bytes(b"x" * 1_000_000 + b"\n\xff end\n")
    cut, last = log_tail(tmp_path)
    assert set(cut) == {"x"} and len(cut) < 70_000
    assert last == "\ufffd end"


def test_a_job_that_never_started_has_no_log(tmp_path):
    assert log_tail(tmp_path) == ()
