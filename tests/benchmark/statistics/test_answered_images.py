"""Deviations of numbers over the test images, from kept predictions."""

import numpy as np
import pytest
import torch

from lowbit.benchmark.statistics.answered_images import PREDICTIONS, AnsweredImages
from lowbit.transfer.scoring.predictions_file import FILE, Predictions, write_predictions

LABELS = torch.tensor([0] * 10 + [1] * 40 + [2] * 50)
WRONG = {"a" * 12: [0, 1, 50], "b" * 12: [0, 11, 99], "c" * 12: []}
FACTS = {"precision": "4w4a", "split": "test"}


@pytest.fixture
def answers(tmp_path):
    for job, wrong in WRONG.items():
        _write(tmp_path / job, wrong)
    return AnsweredImages(tmp_path)


def _write(folder, wrong, ids=None):
    folder.mkdir(parents=True)
    found = LABELS.clone()
    found[wrong] = (found[wrong] + 1) % 3
    ids = torch.arange(100) if ids is None else ids
    parts = [Predictions("test", ids, LABELS, {"4w4a": found})]
    write_predictions(
        folder / PREDICTIONS, parts, dataset="d", split_sha256="s", class_names=["x", "y", "z"]
    )


def _right(job):
    right = np.ones(100)
    right[WRONG[job]] = 0
    return right


def test_the_file_is_the_one_that_jobs_write():
    assert PREDICTIONS == FILE


def test_the_squares_of_a_difference_are_its_error_over_the_images(answers):
    one, other = (answers.deviations(job * 12, value=97.0, metric="top1", **FACTS) for job in "ab")
    assert one.answered == other.answered
    difference = _right("a" * 12) - _right("b" * 12)
    expected = 100**2 * difference.var() / 100
    assert np.square(one.values - other.values).sum() == pytest.approx(expected)


def test_a_mean_per_class_is_over_the_images_of_each_class(answers):
    right = _right("a" * 12)
    classes = [right[LABELS.numpy() == c] for c in range(3)]
    value = 100 * np.mean([part.mean() for part in classes])
    found = answers.deviations("a" * 12, value=value, metric="mean_per_class", **FACTS)
    expected = 100**2 / 9 * sum(part.var() / len(part) for part in classes)
    assert np.square(found.values).sum() == pytest.approx(expected)


def test_seeds_and_pretrainings_are_averaged_each_once(answers):
    jobs = ((("a" * 12,), ("b" * 12,)), (("c" * 12,),))
    right = ((_right("a" * 12) + _right("b" * 12)) / 2 + _right("c" * 12)) / 2
    found = answers.deviations(jobs, value=100 * right.mean(), metric="top1", **FACTS)
    assert found.values == pytest.approx(right - right.mean())


@pytest.mark.parametrize(
    ("job", "changes"),
    [
        ("a", {"value": 96.0}),  # not the number they give
        ("a", {"metric": "AP"}),
        ("a", {"precision": "FP"}),
        ("a", {"split": "val"}),
        ("d", {}),  # kept none
    ],
)
def test_what_does_not_give_the_number_is_not_used(answers, job, changes):
    facts = {"value": 97.0, "metric": "top1"} | FACTS | changes
    assert answers.deviations(job * 12, **facts) is None


def test_other_images_and_damaged_files_are_not_paired(answers, tmp_path, caplog):
    _write(tmp_path / ("e" * 12), [], ids=torch.arange(100) + 1)
    other = answers.deviations("e" * 12, value=100.0, metric="top1", **FACTS)
    same = answers.deviations("c" * 12, value=100.0, metric="top1", **FACTS)
    assert other.answered != same.answered
    jobs = (("c" * 12,), ("e" * 12,))
    assert answers.deviations(jobs, value=100.0, metric="top1", **FACTS) is None
    (tmp_path / ("f" * 12)).mkdir()
    (tmp_path / ("f" * 12) / PREDICTIONS).write_bytes(b"no parquet")
    assert answers.deviations("f" * 12, value=100.0, metric="top1", **FACTS) is None
    assert "was not used" in caplog.text


def test_a_submission_s_files_are_found(tmp_path):
    _write(tmp_path / "submissions" / "theirs" / ("a" * 12), WRONG["a" * 12])
    answers = AnsweredImages(tmp_path)
    assert answers.deviations("a" * 12, value=97.0, metric="top1", **FACTS) is not None
