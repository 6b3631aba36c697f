"""Folding over seeds, against a loop over rows that says the same in plain Python."""

import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.published import reported_rows
from lowbit.benchmark.results.comparability import BOARD, PUBLISHED, SUBJECT, normalize
from lowbit.benchmark.statistics.ranking import summarize
from tests.benchmark.board_frames import failure, make_frame, row, seeds

KEY = [*SUBJECT, *BOARD, "precision", "metric", "unit", *PUBLISHED, "status"]


def _reference_fold(frame):
    """Fold rows one by one; return what is known of each key."""
    groups = defaultdict(list)
    for record in frame.to_dict("records"):
        groups[tuple(record[column] for column in KEY)].append(record)
    return {key: _reference_cell(part) for key, part in groups.items()}


def _reference_cell(part):
    jobs = len({record["job_id"] for record in part})
    if part[0]["status"] != "completed":
        reasons = "; ".join(sorted({record["reason"] for record in part} - {""}))
        return {"value": math.nan, "n_seeds": 0, "n_jobs": jobs, "n": 0, "reason": reasons}
    if part[0]["source"] == "reported":
        (one,) = part
        return {"value": one["value"], "n_seeds": 0, "n_jobs": 0, "n": 0, "reason": ""}
    by_seed = defaultdict(list)
    for record in part:
        by_seed[record["seed"]].append(record["value"])
    means = [math.fsum(values) / len(values) for values in by_seed.values()]
    found = summarize(means)
    low, high, interval = found.low, found.high, "seeds"
    if found.n == 1 or found.sd == 0:
        low, high = (np.mean([r[end] for r in part]) for end in ("image_low", "image_high"))
        interval = "" if math.isnan(low) or math.isnan(high) else "images"
    images = {record["n"] for record in part}
    return {
        "value": found.mean,
        "sd": found.sd,
        "low": low,
        "high": high,
        "interval": interval,
        "stderr": np.mean([record["stderr"] for record in part]),
        "n_seeds": found.n,
        "n_jobs": jobs,
        "n": images.pop() if len(images) == 1 else 0,
        "reason": "; ".join(sorted({record["reason"] for record in part} - {""})),
    }


def _random_rows(count, seed):
    """Rows that often share a key: several seeds, several jobs a seed, failures, sent numbers."""
    draw = np.random.default_rng(seed)
    for i in range(count):
        shared = {
            "checkpoint": f"net {draw.integers(3)}",
            "dataset": str(draw.choice(["digits", "cifar10"])),
            "precision": str(draw.choice(["FP", "4w4a"])),
            "seed": int(draw.integers(4)),
            "job_id": f"{i:012x}",
        }
        if draw.random() < 0.1:
            yield failure(f"reason {draw.integers(3)}", **shared)
            continue
        value = float(draw.choice([90.0, draw.normal(90, 1)]))
        yield row(
            value=value,
            n=int(draw.choice([540, 540, 540, 100])),
            source=str(draw.choice(["measured", "verified", "self-reported"], p=[0.6, 0.2, 0.2])),
            stderr=float(draw.choice([1.5, 1.5, 1.5, math.nan])),
            image_low=value - 3,
            image_high=float(draw.choice([value + 3, value + 3, math.nan])),
            **shared,
        )


def _frame(name):
    if name == "a suite":
        published = normalize(reported_rows([{"paper": "SSQL", "table": "Table 11"}]))
        return pd.concat([normalize(make_frame()), published], ignore_index=True)
    return normalize(pd.DataFrame(_random_rows(400 if name == "dense" else 60, len(name))))


@pytest.mark.parametrize("name", ["a suite", "dense", "sparse"])
def test_every_number_is_that_of_a_loop_over_rows(name):
    frame = _frame(name)
    folded, expected = fold_seeds(frame), _reference_fold(frame)
    assert len(folded) == len(expected)
    for found in folded.to_dict("records"):
        cell = expected[tuple(found[column] for column in KEY)]
        for column, value in cell.items():
            if isinstance(value, str):
                assert found[column] == value, column
            else:
                assert found[column] == pytest.approx(value, nan_ok=True, abs=1e-12), column


def test_what_a_single_seed_left_of_its_images_is_its_interval():
    known = {"image_low": 87.5, "image_high": 92.25}
    (found,) = fold_seeds(normalize(pd.DataFrame([row(value=90.0, **known)]))).to_dict("records")
    assert (found["low"], found["high"], found["interval"]) == (87.5, 92.25, "images")
    (found,) = fold_seeds(normalize(pd.DataFrame([row(value=90.0)]))).to_dict("records")
    assert math.isnan(found["low"]) and found["interval"] == ""


def test_a_warning_goes_with_the_interval_that_it_is_of():
    few = {"image_low": 7.5, "image_high": 12.0, "image_warning": "2 of 3 classes are rare"}
    alone = row(value=90.0, **few)
    (found,) = fold_seeds(normalize(pd.DataFrame([alone]))).to_dict("records")
    assert (found["interval"], found["warning"]) == ("images", "2 of 3 classes are rare")
    several = seeds([90.0, 91.0], **few)  # their interval is over the seeds
    (found,) = fold_seeds(normalize(pd.DataFrame(several))).to_dict("records")
    assert (found["interval"], found["warning"]) == ("seeds", "")


def test_seeds_that_agree_to_the_last_digit_have_no_interval_over_seeds():
    same = seeds([90.2, 90.2, 90.2], image_low=87.0, image_high=92.0)  # 3 x 90.2 / 3 is not 90.2
    (found,) = fold_seeds(normalize(pd.DataFrame(same))).to_dict("records")
    assert (found["value"], found["sd"], found["interval"]) == (90.2, 0.0, "images")
    (found,) = fold_seeds(normalize(pd.DataFrame(seeds([90.0, 91.0])))).to_dict("records")
    assert found["interval"] == "seeds"


def test_rows_come_in_the_order_of_the_papers_tables():
    rows = [
        row(protocol=protocol, precision=precision, source=source)
        for source in ("self-reported", "verified", "measured")
        for precision in ("2w2a", "FP", "8w8a")
        for protocol in ("finetune", "linear")
    ]
    folded = fold_seeds(normalize(pd.DataFrame(rows)))
    found = list(folded[["protocol", "source", "precision"]].itertuples(index=False, name=None))
    assert found == [
        (protocol, source, precision)
        for protocol in ("linear", "finetune")
        for source in ("measured", "verified", "self-reported")
        for precision in ("FP", "8w8a", "2w2a")
    ]
