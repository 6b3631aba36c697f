"""Paired differences of two checkpoints, or of two ways to train."""

import pandas as pd
import pytest
from scipy import stats

from benchmark.comparability import normalize
from benchmark.comparison import compare
from tests.benchmark.board_frames import make_frame, row, seeds


def _compare(rows, a="a", b="b", **options):
    return compare(normalize(pd.DataFrame(rows)), a, b, **options)


def test_one_setting_is_paired_over_seeds():
    a, b = [90.0, 92.0, 91.0], [88.0, 89.0, 89.5]
    (line,) = _compare(seeds(a, checkpoint="a") + seeds(b, checkpoint="b"))
    assert (line.dataset, line.protocol, line.precision, line.metric) == (
        "digits", "linear", "4w4a", "top1",
    )  # fmt: skip
    assert (line.a, line.unit, line.summary.n) == (91.0, "seeds", 3)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (line.summary.low, line.summary.high) == pytest.approx((interval.low, interval.high))


def test_swapping_the_sides_swaps_the_sign():
    rows = seeds([90.0, 92.0], checkpoint="a") + seeds([88.0, 89.0], checkpoint="b")
    (there,), (back,) = _compare(rows), _compare(rows, "b", "a")
    assert there.summary.mean == -back.summary.mean == 2.5
    assert there.summary.low == -back.summary.high


def test_settings_count_once_however_many_seeds_they_have():
    rows = seeds([92.0], checkpoint="a") + seeds([90.0], checkpoint="b")
    for offset in (0, 1):
        rows += seeds([70.0 + offset] * 3, checkpoint="a", dataset="cifar10", protocol=f"p{offset}")
        rows += seeds([64.0] * 3, checkpoint="b", dataset="cifar10", protocol=f"p{offset}")
    *each, overall = _compare(rows)
    assert sorted(line.summary.mean for line in each) == [2.0, 6.0, 7.0]
    assert (overall.dataset, overall.unit, overall.summary.n) == ("all", "settings", 3)
    assert overall.summary.mean == 5.0


def test_precisions_of_one_setting_are_summed_up_over_seeds():
    rows = seeds([90.0, 92.0], checkpoint="a", precision="FP")
    rows += seeds([89.0, 91.0], checkpoint="b", precision="FP")
    rows += seeds([70.0, 74.0], checkpoint="a") + seeds([65.0, 67.0], checkpoint="b")
    full, low, overall = _compare(rows)
    assert (full.precision, low.precision, overall.precision) == ("FP", "4w4a", "all")
    assert (overall.summary.mean, overall.unit, overall.summary.n) == (3.5, "seeds", 2)


def test_only_what_differs_in_nothing_else_is_paired():
    rows = seeds([90.0, 91.0, 92.0], checkpoint="a")
    rows += [row(checkpoint="b", seed=1, value=80.0), row(checkpoint="b", seed=7, value=10.0)]
    rows += seeds([5.0] * 3, checkpoint="b", policy_fingerprint="0" * 12)
    rows += seeds([6.0] * 3, checkpoint="b", split="val")
    (line,) = _compare(rows)
    assert (line.summary.n, line.summary.mean) == (1, 11.0)


def test_ways_to_train_are_paired_by_checkpoint():
    lines = compare(normalize(make_frame()), "sgdt", "lsq", by="training")
    each = [line for line in lines if line.metric == "AP" and line.unit == "seeds"]
    assert sorted(line.alike for line in each) == ["simclr-r10", "simsiam-r10", "ssql-r10"]
    overall = next(line for line in lines if line.metric == "AP" and line.unit == "settings")
    assert overall.summary.n == 3
    assert overall.summary.mean > 0


def test_detectors_of_two_checkpoints_are_paired_by_training():
    lines = compare(normalize(make_frame()), "ssql-r10", "simclr-r10")
    found = {(line.alike, line.precision) for line in lines if line.metric == "AP50"}
    assert {("fp", "FP"), ("lsq", "4w4a"), ("sgdt", "4w4a")} <= found


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"no checkpoint 'ssql-r18'.*Did you mean 'ssql-r10'"):
        compare(normalize(make_frame()), "ssql-r18", "simsiam-r10")


def test_names_without_a_common_setting_are_refused():
    rows = seeds([90.0], checkpoint="a") + seeds([80.0], checkpoint="b", engine="other")
    with pytest.raises(ValueError, match="nothing was compared"):
        _compare(rows)
