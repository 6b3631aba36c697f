"""Which rows may share a ranking, and what folding over seeds keeps apart."""

import math

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.boards import make_boards, make_reported, missing_jobs
from lowbit.benchmark.published import reported_rows
from lowbit.benchmark.results.comparability import BOARD, SUBJECT, normalize
from lowbit.benchmark.results.result_file import COLUMNS
from tests.benchmark.board_frames import failure, make_frame, row, seeds

GOOD, BAD = [90.0, 90.2, 90.4], [80.0, 80.2, 80.4]


def _fold(rows):
    return fold_seeds(normalize(pd.DataFrame(rows)))


def _two(**difference):
    """A good checkpoint, and a bad one that differs in its conditions too."""
    return _fold(seeds(GOOD, checkpoint="good") + seeds(BAD, checkpoint="bad", **difference))


def _ranks(folded):
    return dict(zip(folded["checkpoint"], folded["rank"], strict=True))


def test_the_fixture_has_the_columns_of_the_results_frame():
    assert set(COLUMNS) <= set(make_frame().columns)


def test_equal_conditions_share_a_ranking():
    folded = _two()
    assert _ranks(folded) == {"good": 1, "bad": 2}
    assert set(folded["group"]) == {"A"}


@pytest.mark.parametrize(
    "difference",
    [
        {"split_sha256": "ff" * 32},
        {"policy_fingerprint": "0123456789ab"},
        {"protocol": "finetune"},
        {"protocol_version": 2},
        {"image_size": 224},
        {"engine": "other"},
        {"dataset": "cifar10"},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_different_conditions_never_share_a_ranking(difference):
    folded = _two(**difference)
    assert _ranks(folded) == {"good": 1, "bad": 1}
    assert set(folded["group"]) == {"A", "B"}
    boards = make_boards(folded)
    assert [len(board.lines) for board in boards] == [1, 1]
    assert not any(c.best for board in boards for x in board.lines for c in x.cells.values())


@pytest.mark.parametrize("difference", [{"precision": "8w8a"}, {"metric": "mean_per_class"}])
def test_other_precisions_and_metrics_are_other_columns_of_one_board(difference):
    folded = _two(**difference)
    assert _ranks(folded) == {"good": 1, "bad": 1}
    assert set(folded["group"]) == {"A"}


def test_ways_to_train_a_detector_are_compared_whatever_their_policy():
    shared = {"task": "detection", "metric": "AP", "dataset": "digit-scenes", "stderr": 0.5}
    sgdt = seeds(GOOD, training="sgdt", policy="tr", policy_fingerprint="a" * 12, **shared)
    lsq = seeds(BAD, training="lsq", policy="lsq", policy_fingerprint="b" * 12, **shared)
    folded = _fold(sgdt + lsq)
    assert dict(zip(folded["training"], folded["rank"], strict=True)) == {"sgdt": 1, "lsq": 2}
    assert set(folded["policy"]) == {"tr", "lsq"}  # shown, and never averaged together


def test_detectors_of_another_engine_are_not():
    shared = {"task": "detection", "metric": "AP"}
    folded = _fold(
        seeds(GOOD, engine="detectron2", **shared) + seeds(BAD, engine="torchvision", **shared)
    )
    assert folded["rank"].tolist() == [1, 1]
    assert set(folded["group"]) == {"A", "B"}


def test_validation_and_pretraining_are_kept_and_not_ranked():
    folded = _fold(
        seeds(GOOD, split="val") + seeds(GOOD, task="pretrain", metric="loss", split="train")
    )
    assert folded["rank"].tolist() == [0, 0]
    assert set(folded["group"]) == {"-"}
    assert make_boards(folded) == []


def test_reported_is_never_ranked_with_measured():
    # even when a measured row has the very labels of a published one
    published = reported_rows([{"paper": "SSQL", "table": "Table 11", "dataset": "Pets"}])
    labels = {k: published.iloc[0][k] for k in ("dataset", "protocol", "precision", "metric")}
    unknown = dict.fromkeys(("engine", "policy_fingerprint", "split_sha256", "split"), "-")
    mine = seeds([1.0, 2.0], checkpoint="mine", **labels, **unknown)
    folded = fold_seeds(
        pd.concat([normalize(pd.DataFrame(mine)), normalize(published)], ignore_index=True)
    )
    reported = folded[folded["source"] == "reported"]
    assert len(reported) == 20
    assert set(reported["rank"]) == {0}
    assert set(reported["group"]) == {"-"}
    (board,) = make_boards(folded)
    assert [line.subject["checkpoint"] for line in board.lines] == ["mine"]
    assert len(make_reported(folded)) == 4  # 2 systems x 2 protocols


def test_seeds_are_folded():
    (found,) = _fold(seeds([90.0, 92.0, 94.0])).to_dict("records")
    assert (found["value"], found["sd"], found["n_seeds"], found["n_jobs"]) == (92.0, 2.0, 3, 3)
    assert found["n"] == 540
    assert found["low"] < 92.0 < found["high"]


def test_more_seeds_do_not_make_the_error_over_test_images_smaller():
    rows = seeds([90.0, 92.0, 94.0])
    for found, error in zip(rows, (1.5, 1.2, 0.9), strict=True):
        found["stderr"] = error
    assert _fold(rows)["stderr"].tolist() == pytest.approx([1.2])
    del rows[1]["stderr"]  # an older result: then nobody knows
    assert _fold(rows)["stderr"].isna().all()


def test_two_jobs_of_one_seed_do_not_count_as_two_seeds():
    rows = [
        row(value=90.0, seed=0, job_id="a"),
        row(value=94.0, seed=0, job_id="b"),
        row(value=80.0, seed=1, job_id="c"),
    ]
    (found,) = _fold(rows).to_dict("records")
    assert (found["value"], found["n_seeds"], found["n_jobs"]) == (86.0, 2, 3)


def test_folding_does_not_depend_on_the_order_of_rows():
    frame = make_frame()
    shuffled = frame.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(fold_seeds(normalize(frame)), fold_seeds(normalize(shuffled)))


def test_numbers_that_pandas_reads_as_floats_keep_their_labels():
    frame = pd.DataFrame(seeds(GOOD)).astype({"image_size": float, "protocol_version": float})
    folded = fold_seeds(normalize(frame))
    assert (folded.loc[0, "image_size"], folded.loc[0, "protocol_version"]) == ("32", "1")


def test_a_value_that_is_no_number_is_a_failure_with_a_reason():
    (found,) = _fold([row(value=math.inf)]).to_dict("records")
    assert found["status"] == "failed"
    assert "not a finite number" in found["reason"]


def test_a_failed_seed_is_noted_on_the_number_the_others_gave():
    folded = _fold([*seeds(GOOD), failure("out of memory", seed=3, job_id="d")])
    assert sorted(folded["status"]) == ["completed", "failed"]
    (board,) = make_boards(folded)
    (line,) = board.lines
    cell = line.cells["4w4a", "top1"]
    assert (cell.n_seeds, cell.missing) == (3, 1)


def test_a_failed_checkpoint_has_a_line_on_its_board():
    lost = failure("no such file", checkpoint="lost", method="-", architecture="-")
    (board,) = make_boards(_fold([*seeds(GOOD), lost]))
    assert [line.subject["checkpoint"] for line in board.lines] == ["ssql-r10", "lost"]
    cell = board.lines[1].cells["4w4a", "top1"]
    assert (cell.status, cell.reason, cell.n_seeds) == ("failed", "no such file", 0)


def test_jobs_without_numbers_are_listed_once_with_all_precisions():
    rows = [failure("boom", precision=p, job_id="a") for p in ("4w4a", "FP", "8w8a")]
    (job,) = missing_jobs(normalize(pd.DataFrame(rows)))
    assert (job["precisions"], job["reason"], job["job_id"]) == ("FP, 8w8a, 4w4a", "boom", "a")


def test_drop_is_from_the_same_lines_full_precision():
    rows = seeds(GOOD, precision="FP") + seeds(BAD, precision="4w4a")
    (board,) = make_boards(_fold(rows))
    cells = board.lines[0].cells
    assert cells["4w4a", "top1"].drop == pytest.approx(-10.0)
    assert math.isnan(cells["FP", "top1"].drop)


def test_drop_of_a_detector_is_from_the_full_precision_detector_of_its_checkpoint():
    shared = {"task": "detection", "metric": "AP"}
    none = {"policy": "-", "policy_fingerprint": "-"}
    rows = seeds([50.0, 52.0], precision="FP", training="fp", **none, **shared)
    rows += seeds([45.0, 47.0], training="lsq", **shared)
    (board,) = make_boards(_fold(rows))
    quantized = next(line for line in board.lines if line.subject["training"] == "lsq")
    assert quantized.cells["4w4a", "AP"].drop == pytest.approx(-5.0)


def test_best_is_marked_only_where_something_is_told_worse():
    (board,) = make_boards(_fold(seeds(GOOD, checkpoint="a") + seeds(GOOD, checkpoint="b")))
    assert [line.cells["4w4a", "top1"].best for line in board.lines] == [False, False]
    (board,) = make_boards(_two())
    assert [line.cells["4w4a", "top1"].best for line in board.lines] == [True, False]


def test_lines_come_best_first_over_the_precisions_all_have():
    rows = seeds([70.0, 70.0], checkpoint="fast", precision="4w4a")
    rows += seeds([90.0, 90.0], checkpoint="slow", precision="FP")
    rows += seeds([60.0, 60.0], checkpoint="slow", precision="4w4a")
    (board,) = make_boards(_fold(rows))
    assert [line.subject["checkpoint"] for line in board.lines] == ["fast", "slow"]
    assert board.precisions == ["FP", "4w4a"]


def test_more_than_26_boards_have_letters_of_their_own():
    rows = [line for size in range(30) for line in seeds(GOOD, image_size=100 + size)]
    groups = _fold(rows)["group"].tolist()
    assert groups[:2] == ["A", "B"]
    assert groups[25:28] == ["Z", "AA", "AB"]
    assert len(set(groups)) == 30


def test_the_key_is_what_the_page_says_it_is():
    assert set(BOARD) == {
        "task", "dataset", "split_sha256", "split", "protocol", "protocol_version", "image_size",
        "engine", "processor", "instruction_set", "cores", "products", "board_policy",
    }  # fmt: skip
    assert "checkpoint" in SUBJECT
    assert not set(SUBJECT) & set(BOARD)
