"""Ranks of detectors, paired by their numbers on the same halves of the images."""

import numpy as np
import pytest

from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.benchmark.statistics.ranking import Sample, rank_groups
from lowbit.detection.scoring.half_samples import spread_of_difference
from lowbit.detection.scoring.halves_file import FILE, write_halves

IMAGES = 300
TRUTH = {"images": [{"id": i} for i in range(IMAGES)], "annotations": []}
WHERE = {"metric": "AP", "precision": "FP", "split": "test"}
JOBS = {letter: letter * 12 for letter in "abcd"}
LEVEL = {"a": 50.0, "b": 49.0, "c": 50.5, "d": 50.0}


@pytest.fixture(scope="module")
def kept():
    """AP on halves that detectors find hard alike: it varies by 2, and differences by 0.2."""
    draw = np.random.default_rng(0)
    shared = draw.normal(0, 2, 200)
    return {job: LEVEL[job] + shared + draw.normal(0, 0.15, 200) for job in "abc"}


@pytest.fixture
def answers(tmp_path, kept):
    for letter, values in kept.items():
        (tmp_path / JOBS[letter]).mkdir()
        rows = [{**WHERE, "value": LEVEL[letter]}]
        write_halves(tmp_path / JOBS[letter], TRUTH, rows, {"FP": {"AP": values}})
    return AnsweredImages(tmp_path)


def sample(answers, letter, paired):
    found = answers.deviations(JOBS[letter], value=LEVEL[letter], **WHERE)
    stderr = float(np.sqrt(np.square(found.values).sum()))
    deviations = (found.values, found.answered) if paired else (None, "")
    return Sample((LEVEL[letter],), stderr, found.images, *deviations)


def test_squares_of_a_difference_are_its_squared_error(answers, kept):
    one, other = (answers.deviations(JOBS[x], value=LEVEL[x], **WHERE) for x in "ab")
    assert one.answered == other.answered and one.images == IMAGES
    expected = spread_of_difference(1.0, kept["a"] - kept["b"], IMAGES).stderr
    assert np.square(one.values - other.values).sum() == pytest.approx(expected**2)
    assert np.square(one.values).sum() == pytest.approx(kept["a"].var(ddof=1))


def test_paired_rows_are_told_apart_where_unpaired_ones_are_tied(answers):
    ranks = {
        paired: rank_groups([sample(answers, letter, paired) for letter in "ab"])
        for paired in (True, False)
    }
    assert ranks == {True: [1, 2], False: [1, 1]}


def test_seeds_are_averaged(answers, kept):
    jobs, mean = (JOBS["a"], JOBS["b"]), (LEVEL["a"] + LEVEL["b"]) / 2
    found = answers.deviations(jobs, value=mean, **WHERE)
    expected = ((kept["a"] + kept["b"]) / 2).var(ddof=1)
    assert np.square(found.values).sum() == pytest.approx(expected)


def test_what_does_not_give_the_number_or_is_missing_is_not_used(answers, tmp_path, caplog):
    assert answers.deviations(JOBS["a"], value=50.1, **WHERE) is None
    assert answers.deviations(JOBS["a"], value=50.0, **{**WHERE, "metric": "AP50"}) is None
    assert answers.deviations(JOBS["d"], value=50.0, **WHERE) is None
    (tmp_path / JOBS["d"]).mkdir()
    (tmp_path / JOBS["d"] / FILE).write_bytes(b"no parquet")
    assert answers.deviations(JOBS["d"], value=50.0, **WHERE) is None
    assert "was not used" in caplog.text


def test_other_images_are_not_paired(answers, tmp_path, kept):
    (tmp_path / JOBS["d"]).mkdir()
    fewer = {**TRUTH, "images": TRUTH["images"][1:]}
    rows = [{**WHERE, "value": LEVEL["d"]}]
    write_halves(tmp_path / JOBS["d"], fewer, rows, {"FP": {"AP": kept["a"]}})
    jobs = (JOBS["a"], JOBS["d"])
    assert answers.deviations(jobs, value=50.0, **WHERE) is None
    mine, theirs = (answers.deviations(job, value=50.0, **WHERE) for job in jobs)
    assert mine.answered != theirs.answered
